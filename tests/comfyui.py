"""How ComfyUI reads a LoRA file, written anew from its rules, to see that our files mean there what was trained.

Source of the rules: `comfy/lora.py` (text encoders: `model_lora_keys_clip`), `comfy/utils.py` and
`comfy/weight_adapter/lora.py` of Comfy-Org/ComfyUI at October 2025. A file's keys are looked up by name in a table made
from the keys of the model; what is not in the table is left out with a line in the log ("lora key not loaded"), and the
image is drawn as by the bare base.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.original import DENOISER, Rows, denoiser_rows, original_weights

_CLIP_LAYERS = {"mlp.fc1", "mlp.fc2", *(f"self_attn.{name}_proj" for name in ("k", "q", "v", "out"))}
_UP_DOWN = [
    (".lora_up.weight", ".lora_down.weight"),
    ("_lora.up.weight", "_lora.down.weight"),
    (".lora_B.weight", ".lora_A.weight"),
    (".lora.up.weight", ".lora.down.weight"),
]


@dataclass(frozen=True)
class Reading:
    """What ComfyUI would make of a file."""

    changes: dict[str, Tensor] = field(default_factory=dict)
    """By the original model's key, what is added to it."""
    not_loaded: list[str] = field(default_factory=list)


def read(path: Path, denoiser: Any, clips: Mapping[str, Any] | None = None) -> Reading:
    """Read a LoRA of this diffusers denoiser as ComfyUI does with the same model in its original form.

    `clips` are the CLIP text encoders by ComfyUI's names: `clip_l` (versions 1, XL), `clip_h` (2), `clip_g` (XL).
    """
    weights = original_weights(denoiser)
    table = denoiser_names(denoiser)
    of_text = dict(_text_weights(clips or {}))
    table |= text_names(of_text)
    weights |= of_text
    lora = load_file(path)
    used: set[str] = set()
    changes: dict[str, Tensor] = {}
    for name, place in table.items():
        for up_end, down_end in _UP_DOWN:
            if name + up_end not in lora:
                continue
            up, down = lora[name + up_end], lora[name + down_end]
            alpha = lora.get(f"{name}.alpha")
            scale = 1.0 if alpha is None else alpha.item() / down.shape[0]
            used |= {name + up_end, name + down_end, *([f"{name}.alpha"] if alpha is not None else [])}
            change = (up.flatten(1) @ down.flatten(1)) * scale
            whole = changes.setdefault(place.key, torch.zeros_like(weights[place.key]))
            rows = whole.narrow(0, place.first, place.rows)
            rows += change.reshape(rows.shape)
    return Reading(changes, sorted(lora.keys() - used))


def denoiser_names(denoiser: Any) -> dict[str, Rows]:
    """Where each name that ComfyUI knows lies in the original weights."""
    return {**_own_names(original_weights(denoiser)), **_diffusers_names(denoiser)}


def _own_names(weights: Mapping[str, Tensor]) -> dict[str, Rows]:
    names = {}
    for key, weight in weights.items():
        inner = key.removeprefix(DENOISER).removesuffix(".weight")
        names[f"lora_unet_{inner.replace('.', '_')}"] = Rows(key, 0, len(weight))
        names[f"diffusion_model.{inner}"] = Rows(key, 0, len(weight))
    return names


def _text_weights(clips: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for clip, encoder in clips.items():
        for name, weight in encoder.state_dict().items():
            layer = name.removeprefix("text_model.").removesuffix(".weight")
            if layer.startswith("encoder.layers.") and layer.split(".", 3)[3] in _CLIP_LAYERS:
                yield f"{clip}.transformer.text_model.{layer}.weight", weight


def text_names(weights: Mapping[str, Tensor]) -> dict[str, Rows]:
    """The same for text encoders; `weights` are by ComfyUI's keys."""
    names = {}
    two = any(key.startswith("clip_l.") for key in weights)
    for key, weight in weights.items():
        clip, layer = key.removesuffix(".weight").split(".transformer.")
        numbers = ("2",) if clip == "clip_g" and two else ("", "1")
        for number in numbers:
            names[f"lora_te{number}_{layer.replace('.', '_')}"] = Rows(key, 0, len(weight))
        folder = "text_encoder_2" if numbers == ("2",) else "text_encoder"
        names[f"{folder}.{layer}"] = names[f"text_encoders.{key.removesuffix('.weight')}"] = Rows(key, 0, len(weight))
    return names


def _diffusers_names(denoiser: Any) -> dict[str, Rows]:
    names = {}
    for layer, place in denoiser_rows(denoiser).items():
        flat = layer.replace(".", "_")
        names[f"lycoris_{flat}"] = place
        if type(denoiser).__name__ == "UNet2DConditionModel":
            names[f"lora_unet_{flat}"] = place
            processor = layer.replace(".to_", ".processor.to_").removesuffix(".0")
            names[f"unet.{processor}"] = names[processor] = place
        else:
            names[f"transformer.{layer}"] = names[f"lora_transformer_{flat}"] = place
    return names
