"""Names of diffusers' transformer layers in the original code bases, which join some layers into a larger one.

There, queries, keys and values are rows of one `qkv`. FLUX's single blocks also add the first half of their MLP.
Sources: `mmditx.py` of Stability-AI/sd3.5 and `model.py` of black-forest-labs/flux, with the layer names of sd-scripts
and ComfyUI.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_BLOCK_PATTERN = re.compile(r"(?P<kind>transformer_blocks|single_transformer_blocks)\.(?P<index>\d+)\.(?P<inner>.+)")


@dataclass(frozen=True)
class LayerSlice:
    """Rows of a layer of the original code base that hold the weight of a diffusers layer.

    Attributes:
        name: name of the original layer.
        first_row: first row of the diffusers layer in the original layer.
        rows: number of rows of the original layer; None if both layers are equal.
    """

    name: str
    first_row: int = 0
    rows: int | None = None


def _stack_rows(
    name: str, hidden: int, *layers: str, extra_rows: Mapping[str, int] | None = None
) -> dict[str, LayerSlice]:
    """Stack layers of `hidden` rows each, then the layers of `extra_rows`, in one original layer `name`."""
    slices, first_row = {}, 0
    sizes = {**dict.fromkeys(layers, hidden), **(extra_rows or {})}
    for layer, rows in sizes.items():
        slices[layer] = LayerSlice(name, first_row, sum(sizes.values()))
        first_row += rows
    return slices


def sd3_slice(layer: str, hidden: int) -> LayerSlice | None:
    """Locate a layer of Stable Diffusion 3 in the original code base; None for layers outside the blocks.

    `transformer_blocks.0.attn.to_k` -> rows of `joint_blocks.0.x_block.attn.qkv`.
    """
    block = _BLOCK_PATTERN.fullmatch(layer)
    if block is None:
        return None
    inner = {
        **_stack_rows("x_block.attn.qkv", hidden, "attn.to_q", "attn.to_k", "attn.to_v"),
        **_stack_rows("x_block.attn2.qkv", hidden, "attn2.to_q", "attn2.to_k", "attn2.to_v"),
        **_stack_rows("context_block.attn.qkv", hidden, "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        "attn.to_out.0": LayerSlice("x_block.attn.proj"),
        "attn2.to_out.0": LayerSlice("x_block.attn2.proj"),
        "attn.to_add_out": LayerSlice("context_block.attn.proj"),
        "ff.net.0.proj": LayerSlice("x_block.mlp.fc1"),
        "ff.net.2": LayerSlice("x_block.mlp.fc2"),
        "ff_context.net.0.proj": LayerSlice("context_block.mlp.fc1"),
        "ff_context.net.2": LayerSlice("context_block.mlp.fc2"),
    }
    return _in_block(f"joint_blocks.{block['index']}", inner.get(block["inner"]))


def flux_slice(layer: str, hidden: int) -> LayerSlice | None:
    """Locate a layer of FLUX in the original code base; None for layers outside the blocks.

    `single_transformer_blocks.0.proj_mlp` -> rows of `single_blocks.0.linear1`.
    """
    block = _BLOCK_PATTERN.fullmatch(layer)
    if block is None:
        return None
    if block["kind"] == "single_transformer_blocks":
        mlp = {"proj_mlp": 4 * hidden}
        inner = {
            **_stack_rows("linear1", hidden, "attn.to_q", "attn.to_k", "attn.to_v", extra_rows=mlp),
            "proj_out": LayerSlice("linear2"),
            "norm.linear": LayerSlice("modulation.lin"),
        }
        return _in_block(f"single_blocks.{block['index']}", inner.get(block["inner"]))
    inner = {
        **_stack_rows("img_attn.qkv", hidden, "attn.to_q", "attn.to_k", "attn.to_v"),
        **_stack_rows("txt_attn.qkv", hidden, "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        "attn.to_out.0": LayerSlice("img_attn.proj"),
        "attn.to_add_out": LayerSlice("txt_attn.proj"),
        "ff.net.0.proj": LayerSlice("img_mlp.0"),
        "ff.net.2": LayerSlice("img_mlp.2"),
        "ff_context.net.0.proj": LayerSlice("txt_mlp.0"),
        "ff_context.net.2": LayerSlice("txt_mlp.2"),
        "norm1.linear": LayerSlice("img_mod.lin"),
        "norm1_context.linear": LayerSlice("txt_mod.lin"),
    }
    return _in_block(f"double_blocks.{block['index']}", inner.get(block["inner"]))


def _in_block(block: str, layer_slice: LayerSlice | None) -> LayerSlice | None:
    return (
        None
        if layer_slice is None
        else LayerSlice(f"{block}.{layer_slice.name}", layer_slice.first_row, layer_slice.rows)
    )
