"""Conversion of the transformers of Stable Diffusion 3 and FLUX.1 to the tensor names of their original code bases.

Queries, keys and values become rows of one matrix. Shift and scale of the last normalisation have the opposite order
to diffusers. Sources: `mmditx.py` of Stability-AI/sd3.5 and `model.py` of black-forest-labs/flux.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from sdlora.models.families.dit_names import LayerSlice
from sdlora.models.families.flow import FlowFamily

_BLOCK_PATTERN = re.compile(r"(?P<kind>(?:single_)?transformer_blocks)\.(?P<index>\d+)\.(?P<inner>.+)")
_Names = Mapping[str, str]

_SD3_OUTSIDE: _Names = {
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
_SD3_BLOCK: _Names = {
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
}
_FLUX_OUTSIDE: _Names = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
_FLUX_BLOCK: _Names = {
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
}
_FLUX_SINGLE: _Names = {"attn.norm_q": "norm.query_norm", "attn.norm_k": "norm.key_norm"}


def transformer_tensors(family: FlowFamily, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a transformer's tensors to their original names, without the outer `model.diffusion_model.`.

    Args:
        family: Stable Diffusion 3 or FLUX.1.
        state: tensors by diffusers' names.
    """
    settings = family.denoiser_settings
    hidden = settings["num_attention_heads"] * settings["attention_head_dim"]
    swapped = {"norm_out.linear"}
    if family.name == "sd3":  # the last block normalises the text like the final layer normalises the image
        swapped.add(f"transformer_blocks.{settings['num_layers'] - 1}.norm1_context.linear")
    stacks: dict[str, list[tuple[int, Tensor]]] = {}
    for name, tensor in state.items():
        layer, _, leaf = name.rpartition(".")
        if name == "pos_embed.pos_embed":
            stacks["pos_embed"] = [(0, tensor)]
            continue
        layer_slice = family.original_slice(layer, hidden) or LayerSlice(_original_name(family.name, layer))
        # FLUX calls the weight of a norm "scale".
        leaf = "scale" if family.name == "flux" and layer_slice.name.endswith("_norm") else leaf
        rows = torch.cat(tensor.chunk(2)[::-1]) if layer in swapped else tensor
        stacks.setdefault(f"{layer_slice.name}.{leaf}", []).append((layer_slice.first_row, rows))
    return {
        name: torch.cat([rows for _, rows in sorted(stack, key=lambda entry: entry[0])])
        for name, stack in stacks.items()
    }


def _original_name(family: str, layer: str) -> str:
    """Return the original name of a layer that is not joined with others."""
    block = _BLOCK_PATTERN.fullmatch(layer)
    if block is None:
        return (_SD3_OUTSIDE if family == "sd3" else _FLUX_OUTSIDE)[layer]
    if family == "sd3":
        return f"joint_blocks.{block['index']}.{_SD3_BLOCK[block['inner']]}"
    if block["kind"] == "single_transformer_blocks":
        return f"single_blocks.{block['index']}.{_FLUX_SINGLE[block['inner']]}"
    return f"double_blocks.{block['index']}.{_FLUX_BLOCK[block['inner']]}"
