"""Adapters of every family and method on tiny bases, and what they change there, in diffusers and in peft."""

from __future__ import annotations

import copy
import re

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer

from sdlora.lora.attach import attach_lora
from sdlora.lora.text import attach_to_text_encoder
from sdlora.models.config import BaseModelConfig
from sdlora.models.families import family_of
from sdlora.models.files.sources import load_base_model
from tests import families, readers
from tests.settings import filled_lora
from tests.unit.lora.perturb import perturb_adapter
from tests.unit.lora.test_files import save

CLIPS = {"sd1": ("clip_l",), "sd2": ("clip_h",), "sdxl": ("clip_l", "clip_g"), "sd3": (), "flux": ()}


def build(name, folder):
    """Like `families.build`, with the two layers a level that A1111's names of versions 1 and 2 count on."""
    if name not in ("sd1", "sd2"):
        return families.build(name, folder, **({"shallow": True} if name == "sdxl" else {}))
    torch.manual_seed(0)
    tokenizer = families.clip_tokenizer()
    StableDiffusionPipeline(
        vae=families.autoencoder(4, 0.18215),
        text_encoder=families.clip(tokenizer, "quick_gelu" if name == "sd1" else "gelu"),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=2,
            cross_attention_dim=32,
            norm_num_groups=8,
            use_linear_projection=name == "sd2",
        ),
        scheduler=DDIMScheduler(**families.BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def merge_layers(network):
    """Add every attached update to its layer's weight, as peft does."""
    for layer in network.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.merge()


def plain_state(network):
    """The weights by their names without peft."""
    state = network.state_dict()
    plain = {key.replace(".base_layer.", "."): value.clone() for key, value in state.items()}
    return {key: value for key, value in plain.items() if not re.search(r"\.(lora|hada|lokr)_", key)}


class Trained:
    """One family's base, and what adapters of it do there and in each tool."""

    def __init__(self, name, home):
        self.name, self.home = name, home
        self.base = load_base_model(BaseModelConfig(source=str(build(name, home / name))), home)
        self.family = family_of(self.base.folder)
        self.pipeline = self.family.pipeline_class.from_pretrained(
            str(self.base.folder), local_files_only=True, **self.family.pipeline_extras
        )
        encoders = ("text_encoder", "text_encoder_2")[: len(CLIPS[name])]
        self.parts = (self.family.layout.denoiser, *encoders)
        self.bare = {part: plain_state(getattr(self.pipeline, part)) for part in self.parts}
        self.networks = {part: copy.deepcopy(getattr(self.pipeline, part)) for part in self.parts}
        self.before = self.model(self.bare)

    def model(self, states):
        """The weights as the tools see them."""
        for part in self.parts:
            self.networks[part].load_state_dict(states[part])
        denoiser, *encoders = self.networks.values()
        return readers.Model.of(self.name, denoiser, dict(zip(CLIPS[self.name], encoders, strict=True)))

    def changes(self, states):
        """What was added to each weight, by the original code base's keys."""
        after = self.model(self.bare | states).weights
        changes = {key: after[key] - weight for key, weight in self.before.weights.items()}
        return {key: change for key, change in changes.items() if change.abs().max() > 1e-4}

    def make(self, method, text):
        """An adapter's folder, and what was trained."""
        config = filled_lora(method=method, rank=2, alpha=3, text_encoder_rank=2 if text else None)
        denoiser, *names = (copy.deepcopy(getattr(self.pipeline, part)) for part in self.parts)
        perturb_adapter(attach_lora(denoiser, config))
        encoders = dict(zip(self.parts[1:], names, strict=True)) if text else {}
        for index, encoder in enumerate(encoders.values()):
            encoder.requires_grad_(False)
            perturb_adapter(attach_to_text_encoder(encoder, self.family.text_parts[index], config, seed=0), seed=index)
        adapter = save(self.home / f"{method}-{text}", denoiser, config, self.base, text_encoders=encoders)
        trained = {self.parts[0]: denoiser, **encoders}
        for network in trained.values():
            merge_layers(network)
        return adapter, self.changes({part: plain_state(network) for part, network in trained.items()})

    def in_diffusers(self, folder):
        try:
            self.pipeline.load_lora_weights(str(folder), local_files_only=True)
            for part in self.parts:
                merge_layers(getattr(self.pipeline, part))
            return readers.Reading(self.changes({p: plain_state(getattr(self.pipeline, p)) for p in self.parts}))
        except ValueError:
            return readers.Reading(refused=True)
        finally:
            self.pipeline.unload_lora_weights()
            for part in self.parts:
                getattr(self.pipeline, part).load_state_dict(self.bare[part])

    def in_peft(self, folder):
        states = {}
        for part in self.parts:
            subfolder = None if part == self.parts[0] else part
            if (folder / (subfolder or ".") / "adapter_config.json").is_file():
                network = copy.deepcopy(getattr(self.pipeline, part))
                loaded = PeftModel.from_pretrained(network, str(folder), subfolder=subfolder)
                states[part] = loaded.merge_and_unload().state_dict()
        return readers.Reading(self.changes(states)) if states else readers.Reading(refused=True)
