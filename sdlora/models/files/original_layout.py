"""Single-file checkpoints in the layout of the original code bases, which ComfyUI and other tools load.

diffusers reads this layout (`from_single_file`) but does not write it. Stable Diffusion 3 and FLUX.1 are written with
their text encoders and autoencoder, under the names of ComfyUI's checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sdlora.models.families.base import Family
from sdlora.models.families.flow import FlowFamily
from sdlora.models.families.sgm_names import sgm_name
from sdlora.models.files.original_transformers import transformer_tensors

DENOISER = "model.diffusion_model."
_CLIP, _OPEN_CLIP, _T5 = "transformer.text_model.", "model.", "transformer."
_TEXT_PREFIXES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "sd1": {"text_encoder": ("cond_stage_model.", _CLIP)},
    "sd2": {"text_encoder": ("cond_stage_model.", _OPEN_CLIP)},
    "sdxl": {
        "text_encoder": ("conditioner.embedders.0.", _CLIP),
        "text_encoder_2": ("conditioner.embedders.1.", _OPEN_CLIP),
    },
    "sd3": {
        "text_encoder": ("text_encoders.clip_l.", _CLIP),
        "text_encoder_2": ("text_encoders.clip_g.", _CLIP),
        "text_encoder_3": ("text_encoders.t5xxl.", _T5),
    },
    "flux": {"text_encoder": ("text_encoders.clip_l.", _CLIP), "text_encoder_2": ("text_encoders.t5xxl.", _T5)},
}
_VAE_PREFIXES = {"flux": "vae."}
_OPEN_CLIP_NAMES = {
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_OPEN_CLIP_LAYERS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def original_tensors(family: Family, parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Rename the tensors of a base model to their original names.

    Args:
        family: family of the model.
        parts: states of the denoiser, `vae` and each text encoder, by folder and tensor name of diffusers. Stable
            Diffusion 3 may lack its T5.
    """
    denoiser = parts[family.layout.denoiser]
    if isinstance(family, FlowFamily):
        named = transformer_tensors(family, denoiser)
    else:
        named = {_unet_name(name, family.denoiser_settings): tensor for name, tensor in denoiser.items()}
    tensors = {f"{DENOISER}{name}": tensor for name, tensor in named.items()}
    prefix = _VAE_PREFIXES.get(family.name, "first_stage_model.")
    levels = len(family.settings("vae")["block_out_channels"])
    for name, tensor in parts["vae"].items():
        original = _vae_name(name, levels)
        square = ".attn_1." in original and original.endswith(".weight") and tensor.ndim == 2
        tensors[f"{prefix}{original}"] = tensor[:, :, None, None] if square else tensor
    for folder, (text_prefix, kind) in _TEXT_PREFIXES[family.name].items():
        if folder in parts:
            tensors |= {f"{text_prefix}{name}": tensor for name, tensor in _text_tensors(kind, parts[folder]).items()}
    return tensors


def _text_tensors(kind: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if kind == _T5:  # T5 has two names for the same embedding; one is written
        return {f"{_T5}{name}": tensor for name, tensor in state.items() if name != "encoder.embed_tokens.weight"}
    if kind == _OPEN_CLIP:
        return {f"{_OPEN_CLIP}{name}": tensor for name, tensor in _open_clip_tensors(state).items()}
    unprefixed = _clip_tensors(state)
    # The projection is outside the text model.
    return {f"{'transformer.' if n.startswith('text_projection') else _CLIP}{n}": t for n, t in unprefixed.items()}


def _unet_name(name: str, settings: Mapping[str, Any]) -> str:
    layer, _, leaf = name.rpartition(".")
    return f"{sgm_name(layer, settings)}.{leaf}"


def _vae_name(name: str, levels: int) -> str:
    side, *components = name.split(".")
    name = ".".join(components)
    for level in range(levels):
        name = name.replace(f"down_blocks.{level}.", f"down.{level}.")
        name = name.replace(f"up_blocks.{level}.", f"up.{levels - 1 - level}.")
    name = name.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
    if name.startswith("mid_block.attentions.0."):
        layer, _, leaf = name.removeprefix("mid_block.attentions.0.").rpartition(".")
        name = f"mid.attn_1.{_VAE_ATTENTION[layer]}.{leaf}"
    name = name.replace(".resnets.", ".block.").replace("conv_shortcut", "nin_shortcut")
    name = name.replace("downsamplers.0.conv", "downsample.conv").replace("upsamplers.0.conv", "upsample.conv")
    return f"{side}.{name.replace('conv_norm_out', 'norm_out')}"


def _clip_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("text_model."): tensor for name, tensor in state.items()}


def _open_clip_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert CLIP's tensors to OpenCLIP's: one matrix for query, key and value, and a transposed projection."""
    unprefixed = _clip_tensors(state)
    tensors: dict[str, Tensor] = {}
    for name, tensor in unprefixed.items():
        if name in _OPEN_CLIP_NAMES:
            tensors[_OPEN_CLIP_NAMES[name]] = tensor
        elif name == "text_projection.weight":
            tensors["text_projection"] = tensor.T.contiguous()
        elif name.startswith("encoder.layers."):
            index, inner = name.removeprefix("encoder.layers.").split(".", 1)
            block, (layer, _, leaf) = f"transformer.resblocks.{index}.", inner.rpartition(".")
            if layer == "self_attn.q_proj":
                rows = [unprefixed[name.replace("q_proj", projection)] for projection in ("q_proj", "k_proj", "v_proj")]
                tensors[f"{block}attn.in_proj_{leaf}"] = torch.cat(rows)
            elif layer not in ("self_attn.k_proj", "self_attn.v_proj"):
                tensors[f"{block}{_OPEN_CLIP_LAYERS[layer]}.{leaf}"] = tensor
    return tensors
