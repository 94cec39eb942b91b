"""Stable Diffusion 3 and 3.5: a transformer over text and image tokens, up to three text encoders."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor, nn

from sdlora.models.families.base import TextOutputs, TextPart
from sdlora.models.families.dit_names import LayerSlice, sd3_slice
from sdlora.models.families.flow import FlowFamily
from sdlora.models.families.text import ClipProjected, T5Final

T5_TOKENS = 256


class StableDiffusion3(FlowFamily):
    """Stable Diffusion 3 and 3.5 (Esser et al. 2024, arXiv:2403.03206), with or without its T5 encoder."""

    denoiser_class = SD3Transformer2DModel
    pipeline_class = StableDiffusion3Pipeline

    @cached_property
    def text_parts(self) -> tuple[TextPart, ...]:
        present = {text.encoder for text in self.layout.text_of(self.folder)}
        clips = ClipProjected("text_encoder", "tokenizer"), ClipProjected("text_encoder_2", "tokenizer_2")
        t5 = (T5Final("text_encoder_3", "tokenizer_3", T5_TOKENS),) if "text_encoder_3" in present else ()
        return clips + t5

    def conditioning(self, outputs: TextOutputs) -> dict[str, Tensor]:
        clip_l, clip_g = outputs["text_encoder"], outputs["text_encoder_2"]
        clip = torch.cat([clip_l["hidden"], clip_g["hidden"]], dim=-1)  # (B, 77, D1 + D2)
        width = self.denoiser_settings["joint_attention_dim"]
        clip = nn.functional.pad(clip, (0, width - clip.shape[-1]))  # (B, 77, D)
        if "text_encoder_3" in outputs:
            t5 = outputs["text_encoder_3"]["hidden"]  # (B, 256, D)
        else:
            t5 = clip.new_zeros(len(clip), T5_TOKENS, width)  # the base was trained with zeros for a dropped T5
        return {
            "encoder_hidden_states": torch.cat([clip, t5], dim=-2),  # (B, 77 + 256, D)
            "pooled_projections": torch.cat([clip_l["pooled"], clip_g["pooled"]], dim=-1),  # (B, P1 + P2)
        }

    def predict(
        self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]
    ) -> Tensor:
        timesteps = timesteps.expand(len(noisy))
        prediction: Tensor = denoiser(noisy, timestep=timesteps, **conditioning, return_dict=False)[0]
        return prediction

    def pipeline_inputs(self, conditioning: Mapping[str, Tensor], negative: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            "prompt_embeds": conditioning["encoder_hidden_states"],
            "pooled_prompt_embeds": conditioning["pooled_projections"],
            "negative_prompt_embeds": negative["encoder_hidden_states"],
            "negative_pooled_prompt_embeds": negative["pooled_projections"],
        }

    def original_slice(self, layer: str, hidden: int) -> LayerSlice | None:
        return sd3_slice(layer, hidden)

    def kohya_metadata(self, prediction: str) -> dict[str, str]:
        # As sd-scripts tells the editions apart (`sd3_utils.analyze_state_dict_state`), in the names that it writes.
        edition = "medium"
        if self.denoiser_settings.get("qk_norm"):
            edition = "5-medium" if self.denoiser_settings.get("dual_attention_layers") else "5-large"
        return {
            "ss_v2": "False",
            "ss_base_model_version": "sd3",
            "modelspec.architecture": f"stable-diffusion-3-{edition}/lora",
            "modelspec.implementation": "diffusers",
        }

    kohya_module = "networks.lora_sd3"
