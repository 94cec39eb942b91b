"""Names of diffusers' transformer layers in the original code bases, where some of them are one larger layer.

Sources: `mmditx.py` of Stability-AI/sd3.5 and `model.py` of black-forest-labs/flux, as sd-scripts and ComfyUI name
them. Queries, keys and values are rows of one `qkv` there; FLUX's single blocks add the first half of their MLP.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_BLOCK = re.compile(r"(?P<kind>transformer_blocks|single_transformer_blocks)\.(?P<index>\d+)\.(?P<inner>.+)")


@dataclass(frozen=True)
class Place:
    """Where a layer's weight lies in the original code base.

    Attributes:
        name: the original layer.
        first_row: where this layer's rows begin in it.
        rows: of the whole original layer; None where the two are one and the same.
    """

    name: str
    first_row: int = 0
    rows: int | None = None


def _rows(name: str, hidden: int, *layers: str, more: Mapping[str, int] | None = None) -> dict[str, Place]:
    """Layers of `hidden` rows each, one below the other; then those of `more`."""
    places, first = {}, 0
    sizes = {**dict.fromkeys(layers, hidden), **(more or {})}
    for layer, rows in sizes.items():
        places[layer] = Place(name, first, sum(sizes.values()))
        first += rows
    return places


def sd3_place(layer: str, hidden: int) -> Place | None:
    """`transformer_blocks.0.attn.to_k` -> rows of `joint_blocks.0.x_block.attn.qkv`; None for layers outside."""
    block = _BLOCK.fullmatch(layer)
    if block is None:
        return None
    inner = {
        **_rows("x_block.attn.qkv", hidden, "attn.to_q", "attn.to_k", "attn.to_v"),
        **_rows("x_block.attn2.qkv", hidden, "attn2.to_q", "attn2.to_k", "attn2.to_v"),
        **_rows("context_block.attn.qkv", hidden, "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        "attn.to_out.0": Place("x_block.attn.proj"),
        "attn2.to_out.0": Place("x_block.attn2.proj"),
        "attn.to_add_out": Place("context_block.attn.proj"),
        "ff.net.0.proj": Place("x_block.mlp.fc1"),
        "ff.net.2": Place("x_block.mlp.fc2"),
        "ff_context.net.0.proj": Place("context_block.mlp.fc1"),
        "ff_context.net.2": Place("context_block.mlp.fc2"),
    }
    return _inside(f"joint_blocks.{block['index']}", inner.get(block["inner"]))


def flux_place(layer: str, hidden: int) -> Place | None:
    """`single_transformer_blocks.0.proj_mlp` -> rows of `single_blocks.0.linear1`; None for layers outside."""
    block = _BLOCK.fullmatch(layer)
    if block is None:
        return None
    if block["kind"] == "single_transformer_blocks":
        mlp = {"proj_mlp": 4 * hidden}
        inner = {
            **_rows("linear1", hidden, "attn.to_q", "attn.to_k", "attn.to_v", more=mlp),
            "proj_out": Place("linear2"),
            "norm.linear": Place("modulation.lin"),
        }
        return _inside(f"single_blocks.{block['index']}", inner.get(block["inner"]))
    inner = {
        **_rows("img_attn.qkv", hidden, "attn.to_q", "attn.to_k", "attn.to_v"),
        **_rows("txt_attn.qkv", hidden, "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        "attn.to_out.0": Place("img_attn.proj"),
        "attn.to_add_out": Place("txt_attn.proj"),
        "ff.net.0.proj": Place("img_mlp.0"),
        "ff.net.2": Place("img_mlp.2"),
        "ff_context.net.0.proj": Place("txt_mlp.0"),
        "ff_context.net.2": Place("txt_mlp.2"),
        "norm1.linear": Place("img_mod.lin"),
        "norm1_context.linear": Place("txt_mod.lin"),
    }
    return _inside(f"double_blocks.{block['index']}", inner.get(block["inner"]))


def _inside(block: str, place: Place | None) -> Place | None:
    return None if place is None else Place(f"{block}.{place.name}", place.first_row, place.rows)
