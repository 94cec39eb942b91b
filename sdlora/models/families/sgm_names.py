"""Names of a diffusers U-Net's layers in the original code base (`sgm`, formerly `ldm`).

Blocks are numbered through all levels; a down- or upsampling layer counts as a block.
Source: `openaimodel.py` in Stability-AI/generative-models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_RESNET_NAMES = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_NAMES_OUTSIDE_BLOCKS = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}


def sgm_name(layer: str, settings: Mapping[str, Any]) -> str:
    """Return the name of a U-Net layer in the original code base.

    `up_blocks.0.attentions.1.transformer_blocks.0.ff.net.2` -> `output_blocks.1.1.transformer_blocks.0.ff.net.2`.

    Args:
        layer: name of the layer in diffusers.
        settings: the U-Net's `config.json`.

    Raises:
        KeyError: the original code base has no such layer.
    """
    if layer in _NAMES_OUTSIDE_BLOCKS:
        return _NAMES_OUTSIDE_BLOCKS[layer]
    side, *components = layer.split(".")
    if side == "mid_block":
        kind, index, *inner = components
        position = {"resnets.0": 0, "attentions.0": 1, "resnets.1": 2}[f"{kind}.{index}"]
        return ".".join([f"middle_block.{position}", *_inside(kind, inner)])
    level, kind, index, *inner = components
    layers = _layers_per_level(settings)
    if side == "down_blocks":
        first_block = 1 + sum(count + 1 for count in layers[: int(level)])  # 0 is conv_in; + 1 is the downsampling
        if kind == "downsamplers":
            return f"input_blocks.{first_block + layers[int(level)]}.0.op"
        block = f"input_blocks.{first_block + int(index)}"
    else:
        counts = [count + 1 for count in reversed(layers)]
        first_block = sum(counts[: int(level)])
        if kind == "upsamplers":
            attends = "CrossAttn" in settings["up_block_types"][int(level)]
            return f"output_blocks.{first_block + counts[int(level)] - 1}.{2 if attends else 1}.conv"
        block = f"output_blocks.{first_block + int(index)}"
    return ".".join([block, "0" if kind == "resnets" else "1", *_inside(kind, inner)])


def _inside(kind: str, inner: Sequence[str]) -> Sequence[str]:
    return [_RESNET_NAMES[inner[0]]] if kind == "resnets" else inner


def _layers_per_level(settings: Mapping[str, Any]) -> list[int]:
    layers = settings["layers_per_block"]
    return list(layers) if isinstance(layers, list | tuple) else [layers] * len(settings["block_out_channels"])
