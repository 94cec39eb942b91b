"""How other tools read an adapter file, written from their rules, to see what our files mean there.

Each reader takes a file's tensors and the model that the tool has loaded, in the layer names of diffusers, and answers
with what is added to each weight. Nothing here shares code with the writers or with `sdlora/lora/formats/reading.py`.

Sources:
    ComfyUI: `comfy/lora.py`, `comfy/weight_adapter/` of Comfy-Org/ComfyUI at November 2025; its names are in
        `tests/comfyui.py`.
    Forge: `packages_3rdparty/comfyui_lora_collection/lora.py`, `backend/patcher/lora.py` and
        `extensions-builtin/sd_forge_lora/networks.py` of lllyasviel/stable-diffusion-webui-forge
        at June 2025.
    A1111: `extensions-builtin/Lora/networks.py`, `network.py`, `network_lora.py`, `network_hada.py` and
        `network_lokr.py` of AUTOMATIC1111/stable-diffusion-webui (1.10).
    sd-scripts: `networks/lora.py`, `lora_sd3.py` and `lora_flux.py` of kohya-ss/sd-scripts at February 2026.
    LyCORIS: `lycoris/kohya.py` and `lycoris/modules/` of KohakuBlueleaf/LyCORIS at October 2025, as a network of
        sd-scripts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from tests import comfyui
from tests.original import DENOISER, Rows, denoiser_rows, original_weights

Tensors = Mapping[str, Tensor]
Rule = Callable[[Tensors, Tensor], Tensor | None]
Dora = Literal["turned rows", "original rows", "columns", "ignored"]

_PARTS = re.compile(r"\.(lora_(?:up|down)\.weight|alpha|dora_scale|hada_w[12]_[ab]|lokr_w[12](?:_[ab])?)$")
_CLIP = re.compile(r"encoder\.layers\.\d+\.(?:self_attn\.(?:[qkv]|out)_proj|mlp\.fc[12])\.weight$")


@dataclass(frozen=True)
class Model:
    """A base model as the tools see it.

    Attributes:
        weights: by the original code base's key; text encoders by ComfyUI's keys.
        denoiser: the diffusers network that the names are taken from.
        clips: CLIP text encoders by ComfyUI's name: `clip_l` (versions 1, XL), `clip_h` (2), `clip_g` (XL).
        family: "sd1", "sd2", "sdxl", "sd3" or "flux".
    """

    weights: dict[str, Tensor]
    denoiser: Any
    clips: Mapping[str, Any]
    family: str

    @classmethod
    def of(cls, family: str, denoiser: Any, clips: Mapping[str, Any]) -> Model:
        """Take copies of the weights as they are now."""
        text = {key: tensor for name, clip in clips.items() for key, tensor in _text_weights(name, clip)}
        weights = original_weights(denoiser) | text
        return cls({key: weight.detach().clone() for key, weight in weights.items()}, denoiser, clips, family)

    @cached_property
    def original_names(self) -> dict[str, Rows]:
        """`lora_unet_` and the key of the original code base."""
        names = {}
        for key, weight in original_weights(self.denoiser).items():
            inner = key.removeprefix(DENOISER).removesuffix(".weight")
            names[f"lora_unet_{inner.replace('.', '_')}"] = Rows(key, 0, len(weight))
        return names

    @cached_property
    def sd_scripts_names(self) -> dict[str, Rows]:
        """Its U-Net of versions 1 and 2 has diffusers' names; XL, SD 3 and FLUX have the original ones."""
        names = dict(self.original_names)
        if self.family in ("sd1", "sd2"):
            rows = denoiser_rows(self.denoiser)
            names = {f"lora_unet_{layer.replace('.', '_')}": place for layer, place in rows.items()}
        for number, clip in enumerate(self.clips, 1):
            prefix = f"lora_te{number}" if len(self.clips) > 1 else "lora_te"
            for key, weight in _text_weights(clip, self.clips[clip]):
                layer = key.split(".transformer.")[1].removesuffix(".weight")
                names[f"{prefix}_{layer.replace('.', '_')}"] = Rows(key, 0, len(weight))
        return names

    @cached_property
    def comfyui_names(self) -> dict[str, Rows]:
        """ComfyUI's names of the denoiser's layers."""
        return comfyui.denoiser_names(self.denoiser)


@dataclass
class Reading:
    """What a tool makes of a file.

    Attributes:
        changes: what is added to each weight, by its key in `Model.weights`.
        refused: whether the tool says that it does not load the file.
    """

    changes: dict[str, Tensor] = field(default_factory=dict)
    refused: bool = False


def read_by_comfyui(tensors: Tensors, model: Model) -> Reading:
    """Names are looked up in a table; what is not in the table is left out with a line in the log."""
    names = {**model.comfyui_names, **comfyui.text_names(_text_only(model))}
    return Reading(_changes(tensors, model, names, _rule("original rows")))


def read_by_forge(tensors: Tensors, model: Model) -> Reading:
    """ComfyUI's rules; SD 3 has its original names only, and a file with more than 12 strange keys is refused."""
    names = {**model.comfyui_names, **comfyui.text_names(_text_only(model))}
    if model.family == "sd3":
        names = {**model.original_names, **comfyui.text_names(_text_only(model))}
    known = {key for key in tensors if _split(key)[0] in names}
    if len(tensors) - len(known) > 12:
        return Reading(refused=True)
    return Reading(_changes(tensors, model, names, _rule("original rows")))


def read_by_a1111(tensors: Tensors, model: Model) -> Reading:
    """Names are rewritten to those of its modules by rules that count two layers a level."""
    if model.family == "flux":
        return Reading(refused=True)  # it does not load the base model
    if model.family == "sd3" and any(key.count(".") < 2 for key in tensors):
        return Reading(refused=True)  # `key.rsplit(".", 2)` into three names raises an error for "<layer>.alpha"
    modules = {"diffusion_model_" + name.removeprefix("lora_unet_"): at for name, at in model.original_names.items()}
    modules |= dict(_a1111_text_modules(model))
    names = {}
    for layer in {_split(key)[0] for key in tensors}:
        renamed = _a1111_name(layer, model.family)
        for candidate in (
            renamed,
            layer.replace("lora_unet", "diffusion_model"),
            layer.replace("lora_te1_text_model", "0_transformer_text_model"),
            layer.replace("lora_te1_text_model", "transformer_text_model"),
        ):
            if candidate in modules:
                names[layer] = modules[candidate]
                break
    return Reading(_changes(tensors, model, names, _rule("columns")))


def read_by_sd_scripts(tensors: Tensors, model: Model) -> Reading:
    """Layers of chosen blocks get a module if the file has their `lora_down`; all other tensors are dropped."""

    def rule(parts: Tensors, weight: Tensor) -> Tensor | None:
        return _rule("ignored")(parts, weight) if "lora_down.weight" in parts else None

    return Reading(_changes(tensors, model, model.sd_scripts_names, rule))


def read_by_lycoris(tensors: Tensors, model: Model) -> Reading:
    """Modules of sd-scripts' network whose names the file has; other names of the file are not looked at."""
    return Reading(_changes(tensors, model, model.sd_scripts_names, _rule("turned rows")))


def _changes(tensors: Tensors, model: Model, names: Mapping[str, Rows], rule: Rule) -> dict[str, Tensor]:
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        layer, part = _split(key)
        layers.setdefault(layer, {})[part] = tensor.float()
    changes: dict[str, Tensor] = {}
    for layer, at in names.items():
        if layer not in layers:
            continue
        weight = model.weights[at.key]
        change = rule(layers[layer], weight.narrow(0, at.first, at.rows))
        if change is not None:
            changes.setdefault(at.key, torch.zeros_like(weight)).narrow(0, at.first, at.rows).add_(change)
    return changes


def _split(key: str) -> tuple[str, str]:
    """`lora_unet_x.lora_up.weight` -> (`lora_unet_x`, `lora_up.weight`); a strange key is a layer without parts."""
    found = _PARTS.search(key)
    return (key[: found.start()], found[1]) if found else (key, "")


# Names.


def _text_only(model: Model) -> dict[str, Tensor]:
    return {key: weight for key, weight in model.weights.items() if key.startswith("clip_")}


def _text_weights(clip: str, encoder: Any) -> Iterator[tuple[str, Tensor]]:
    for name, weight in encoder.state_dict().items():
        layer = name.removeprefix("text_model.")
        if _CLIP.fullmatch(layer):
            yield f"{clip}.transformer.text_model.{layer}", weight


def _a1111_text_modules(model: Model) -> Iterator[tuple[str, Rows]]:
    """CLIP-L as transformers names it, the others as OpenCLIP does; XL numbers its two."""
    for number, clip in enumerate(model.clips):
        first = f"{number}_" if len(model.clips) > 1 else ""
        for key, weight in _text_weights(clip, model.clips[clip]):
            layer = key.split(".transformer.text_model.")[1].removesuffix(".weight")
            if clip == "clip_l":
                name = f"transformer_text_model_{layer}"
            else:
                inner = layer.removeprefix("encoder.layers.").replace("self_attn", "attn")
                inner = inner.replace("mlp.fc1", "mlp.c_fc").replace("mlp.fc2", "mlp.c_proj")
                name = f"model_transformer_resblocks_{inner}"
            yield first + name.replace(".", "_"), Rows(key, 0, len(weight))


_A1111_RESNET = {
    "conv1": "in_layers_2",
    "conv2": "out_layers_3",
    "time_emb_proj": "emb_layers_1",
    "conv_shortcut": "skip_connection",
}


def _a1111_name(layer: str, family: str) -> str:
    """`convert_diffusers_name_to_compvis`."""
    block = re.fullmatch(r"lora_unet_(down|up)_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)", layer)
    if block:
        side, level, kind, index, inner = block.groups()
        inner = _A1111_RESNET.get(inner, inner) if kind == "resnets" else inner
        number = 3 * int(level) + int(index) + (side == "down")
        place = "input" if side == "down" else "output"
        return f"diffusion_model_{place}_blocks_{number}_{int(kind == 'attentions')}_{inner}"
    middle = re.fullmatch(r"lora_unet_mid_block_(attentions|resnets)_(\d+)_(.+)", layer)
    if middle:
        kind, index, inner = middle.groups()
        inner = _A1111_RESNET.get(inner, inner) if kind == "resnets" else inner
        return f"diffusion_model_middle_block_{1 if kind == 'attentions' else 2 * int(index)}_{inner}"
    text = re.fullmatch(r"lora_te(2?)_text_model_encoder_layers_(\d+_.+)", layer)
    if text and (text[1] or family == "sd2"):
        inner = text[2].replace("self_attn", "attn").replace("mlp_fc1", "mlp_c_fc").replace("mlp_fc2", "mlp_c_proj")
        return f"{'1_' if text[1] else ''}model_transformer_resblocks_{inner}"
    return f"transformer_text_model_encoder_layers_{text[2]}" if text else layer


# Arithmetic.


def _rule(dora: Dora) -> Rule:
    def change(parts: Tensors, weight: Tensor) -> Tensor | None:
        delta = _delta(parts, weight)
        if delta is None or dora == "ignored" or "dora_scale" not in parts:
            return delta
        turned = weight + delta
        if dora == "columns":
            lengths = turned.transpose(0, 1).flatten(1).norm(dim=1).view(1, -1, *[1] * (weight.ndim - 2))
        else:
            measured = turned if dora == "turned rows" else weight
            lengths = measured.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1))
        return turned * (parts["dora_scale"] / lengths) - weight

    return change


def _delta(parts: Tensors, weight: Tensor) -> Tensor | None:
    if "lora_down.weight" in parts:
        down, up = parts["lora_down.weight"], parts["lora_up.weight"]
        product, rank = up.flatten(1) @ down.flatten(1), len(down)
    elif "hada_w1_a" in parts:
        first, second = (parts[f"hada_w{side}_a"] @ parts[f"hada_w{side}_b"] for side in "12")
        product, rank = first * second, len(parts["hada_w1_b"])
    elif "lokr_w1" in parts:
        small = parts["lokr_w1"]
        rank = len(parts["lokr_w2_b"]) if "lokr_w2_b" in parts else 0
        large = parts["lokr_w2_a"] @ parts["lokr_w2_b"] if rank else parts["lokr_w2"].flatten(1)
        product = torch.kron(small, large)
    else:
        return None
    scale = parts["alpha"].item() / rank if rank and "alpha" in parts else 1.0
    return (product * scale).reshape(weight.shape)
