"""Adapter files of diffusers and peft: `pytorch_lora_weights.safetensors`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from sdlora.core.errors import WeightsError
from sdlora.lora.config import Method, ResolvedLora
from sdlora.lora.formats.reading import Change, change_of
from sdlora.lora.formats.tensor_file import write_tensor_file
from sdlora.lora.layers import ADAPTER_NAME
from sdlora.lora.updates import DecomposedUpdate, HadamardUpdate, KroneckerUpdate, LayerUpdate, LowRankUpdate
from sdlora.models.adapter_file import LYCORIS_NAMES, METADATA_KEY, OUTER_NAME, AdapterPart, PartSettings, split_key


def write_diffusers_file(path: Path, updates: Mapping[str, LayerUpdate], config: ResolvedLora) -> str:
    """Write the file and return its SHA-256; `updates` are by part and layer, `unet.mid_block...to_q`.

    All keys of a LoRA end in lora_A / lora_B. diffusers' own conversion renames only the attention keys to lora.down /
    .up. Its loader then drops one of the two kinds and only logs a warning.

    The format has no alpha tensors; alpha is stored in the metadata, among the settings of peft's configuration.

    Raises:
        StorageError: the disk is full or not writable.
    """
    tensors = {
        f"{name}.{suffix}": tensor
        for name, update in updates.items()
        for suffix, tensor in update.peft_tensors().items()
    }
    metadata: dict[str, Any] = {}
    for part, layers in by_part(updates).items():
        settings = (
            _text_peft_settings(layers) if part.startswith("text_encoder") else _peft_settings(layers, config.method)
        )
        metadata |= {f"{part}.{key}": value for key, value in settings.items()}
    return write_tensor_file(path, tensors, {"format": "pt", METADATA_KEY: json.dumps(metadata, sort_keys=True)})


def read_diffusers_file(path: Path) -> dict[str, Change]:
    """Read the change of each layer's weight by peft's rules: alpha is from the metadata, else the rank.

    Raises:
        WeightsError: the tensors of a layer form no update.
    """
    with safe_open(path, framework="pt") as file:
        settings = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
        layers: dict[str, dict[str, Tensor]] = {}
        for key in file.keys():  # noqa: SIM118
            layer, suffix = split_key(key)
            layers.setdefault(layer, {})[LYCORIS_NAMES.get(suffix, suffix)] = file.get_tensor(key)
    changes = {}
    for layer, layer_tensors in layers.items():
        folder = layer.split(".", 1)[0]
        alpha = settings.get(f"{folder}.lora_alpha", settings.get(f"{folder}.alpha"))
        if alpha is not None and "lokr_w2" in layer_tensors:  # peft scales two whole matrices as well
            layer_tensors["lokr_w1"] = layer_tensors["lokr_w1"] * (alpha / settings[f"{folder}.r"])
        if "dora_scale" in layer_tensors:  # (out,), or (1, out, 1, 1) of a convolution
            layer_tensors["dora_scale"] = layer_tensors["dora_scale"].flatten()
        change = change_of(
            {**layer_tensors, "alpha": torch.tensor(float(alpha))} if alpha is not None else layer_tensors
        )
        if change is None:
            raise WeightsError(
                f"{path.name}: the tensors of {layer} ({', '.join(sorted(layer_tensors))}) make no update."
            )
        changes[layer] = change
    return changes


def read_updates(path: Path, parts: Mapping[str, AdapterPart]) -> dict[str, LayerUpdate]:
    """Read the updates that `write_diffusers_file` was given, by part and layer.

    Args:
        path: a file that `read_adapter_file` has read without an error.
        parts: the result of `read_adapter_file`.
    """
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_file(path).items():
        layer, suffix = split_key(key)
        layers.setdefault(layer, {})[LYCORIS_NAMES.get(suffix, suffix)] = tensor
    return {layer: _update_of(tensors, parts[layer.split(".", 1)[0]].settings) for layer, tensors in layers.items()}


def _update_of(tensors: Mapping[str, Tensor], settings: PartSettings) -> LayerUpdate:
    alpha = float(settings.r if settings.scale_alpha is None else settings.scale_alpha)
    if "hada_w1_a" in tensors:
        return HadamardUpdate(**{name.removeprefix("hada_"): tensor for name, tensor in tensors.items()}, alpha=alpha)
    if "lokr_w1" in tensors:
        w2 = tensors["lokr_w2"] if "lokr_w2" in tensors else (tensors["lokr_w2_a"], tensors["lokr_w2_b"])
        return KroneckerUpdate(tensors["lokr_w1"], w2, alpha, settings.r)
    down, up = tensors["lora_down.weight"], tensors["lora_up.weight"]
    if "dora_scale" in tensors:
        return DecomposedUpdate(down, up, alpha, tensors["dora_scale"].flatten())
    return LowRankUpdate(down, up, alpha)


def group_peft_tensors(tensors: Mapping[str, Tensor], folder: str) -> dict[str, dict[str, Tensor]]:
    """Group the tensors of one part by layer and by the names in peft's layers, such as `lora_A.default.weight`."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if not key.startswith(f"{folder}."):
            continue
        layer, suffix = split_key(key.removeprefix(f"{folder}."))
        factor, _, leaf = suffix.partition(".")
        leaf = "weight" if factor == "lora_magnitude_vector" else leaf
        layers.setdefault(layer, {})[f"{factor}.{ADAPTER_NAME}{'.' + leaf if leaf else ''}"] = tensor
    return layers


def by_part(updates: Mapping[str, LayerUpdate]) -> dict[str, dict[str, LayerUpdate]]:
    """Group updates by part: {"unet.x.to_q": ...} -> {"unet": {"x.to_q": ...}}."""
    parts: dict[str, dict[str, LayerUpdate]] = {}
    for name, update in updates.items():
        part, layer = name.split(".", 1)
        parts.setdefault(part, {})[layer] = update
    return parts


def _text_peft_settings(layers: Mapping[str, LayerUpdate]) -> dict[str, Any]:
    """Build peft's settings for a text encoder, with layer names that transformers 4 and 5 both match.

    In transformers 5 some CLIP models lost the outer name. peft matches ends of names, so the outer name is left out.
    """
    settings = _peft_settings(layers, "lora")
    return {**settings, "target_modules": sorted(layer.removeprefix(OUTER_NAME) for layer in layers)}


def _peft_settings(layers: Mapping[str, LayerUpdate], method: Method) -> dict[str, Any]:
    update = next(iter(layers.values()))
    products = method in ("loha", "lokr")
    settings: dict[str, Any] = {"r": update.rank, "alpha" if products else "lora_alpha": update.alpha}
    settings["target_modules"] = sorted(layers)
    if not products:
        settings["bias"] = "none"
    if method == "dora":
        settings["use_dora"] = True
    return settings
