"""Recognition of layers, method and family in an adapter file of any tool, by names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sdlora.models.adapter_layers import Shapes

_LYCORIS_SUFFIXES = {
    "lora_A.weight": "lora_down.weight",
    "lora_B.weight": "lora_up.weight",
    "lora_A.default.weight": "lora_down.weight",
    "lora_B.default.weight": "lora_up.weight",
    "lora.down.weight": "lora_down.weight",
    "lora.up.weight": "lora_up.weight",
    "lora_linear_layer.down.weight": "lora_down.weight",
    "lora_linear_layer.up.weight": "lora_up.weight",
    "lora_magnitude_vector": "dora_scale",
    "lora_magnitude_vector.weight": "dora_scale",
}
_OLD_DIFFUSERS = re.compile(r"(.+)_lora\.(down|up)\.weight")
_KEY_PATTERN = re.compile(
    r"(.+)\.(lora_(?:down|up|mid)\.weight|alpha|dora_scale|hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2))"
)
_METHODS_BY_SUFFIX = {
    "dora_scale": "DoRA",
    "hada_w1_a": "LoHa",
    "lora_mid.weight": "LoRA (Tucker)",
    "lora_down.weight": "LoRA",
}
# Families by the width of the text embeddings in cross-attention.
_TEXT_WIDTHS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "Stable Diffusion XL"}
_FAMILIES_BY_VERSION = {
    "sd_v1": "Stable Diffusion 1.x",
    "sd_v2": "Stable Diffusion 2.x",
    "sdxl": "Stable Diffusion XL",
    "sd3": "Stable Diffusion 3",
    "flux": "FLUX.1",
}
_FAMILIES_BY_ARCHITECTURE = {
    "stable-diffusion-v1": "Stable Diffusion 1.x",
    "stable-diffusion-v2": "Stable Diffusion 2.x",
    "stable-diffusion-xl": "Stable Diffusion XL",
    "stable-diffusion-3": "Stable Diffusion 3",
    "flux": "FLUX.1",
}
_TEXT_ENCODER_PREFIXES = (
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lora_te3_", "text_encoder_3"),
)


def normalise_key(key: str) -> tuple[str, str] | None:
    """Split a key into layer and LyCORIS suffix; None if the key belongs to no adapter."""
    key = key.removeprefix("base_model.model.")
    for alias, suffix in _LYCORIS_SUFFIXES.items():
        if key.endswith(f".{alias}"):
            return key.removesuffix(f".{alias}"), suffix
    old_match = _OLD_DIFFUSERS.fullmatch(key)
    if old_match:
        return old_match[1], f"lora_{old_match[2]}.weight"
    match = _KEY_PATTERN.fullmatch(key)
    return (match[1], match[2]) if match else None


def method_of(shapes: Shapes) -> str:
    """Return the name of the method of one layer, from its tensors' shapes by suffix."""
    if any(suffix.startswith("lokr_") for suffix in shapes):
        return "LoKr" + (" with DoRA" if "dora_scale" in shapes else "")
    return next((name for suffix, name in _METHODS_BY_SUFFIX.items() if suffix in shapes), "unknown")


def part_of(layer: str) -> str:
    """Return the part of the model that a layer belongs to: a folder of diffusers, or "denoiser"."""
    for prefix, part in _TEXT_ENCODER_PREFIXES:
        if layer.startswith(prefix):
            return part
    if layer.startswith(("lora_te_", "text_encoder.")):
        return "text_encoder"
    head = layer.split(".", 1)[0]
    return head if head.startswith(("text_encoder", "transformer")) else "denoiser"


def family_of_file(layers: Mapping[str, Shapes], metadata: Mapping[str, str]) -> str:
    """Return the family that the shapes show, else the family in the metadata."""
    names = " ".join(layers)
    if "single_transformer_blocks" in names or "single_blocks" in names:
        return "FLUX.1"
    if "joint_blocks" in names or ("transformer_blocks" in names and "add_q_proj" in names):
        return "Stable Diffusion 3"
    for layer, shapes in layers.items():
        down = shapes.get("lora_down.weight", ())
        if re.search(r"attn2[._](?:processor\.)?to_[kv]$", layer) and len(down) > 1:
            width = down[1]
            return _TEXT_WIDTHS.get(width, f"unknown (its text embeddings are {width} wide)")
    version, architecture = metadata.get("ss_base_model_version", ""), metadata.get("modelspec.architecture", "")
    families = [name for prefix, name in _FAMILIES_BY_VERSION.items() if version.startswith(prefix)]
    families += [name for prefix, name in _FAMILIES_BY_ARCHITECTURE.items() if architecture.startswith(prefix)]
    return f"{families[0]}, as the file says" if families else "unknown"
