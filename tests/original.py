"""Diffusers models under the key names of the original code bases, written by hand: no code under test is used.

Sources of the names: `openaimodel.py` and `model.py` of CompVis/latent-diffusion and Stability-AI/generative-models,
`mmditx.py` of Stability-AI/sd3.5, `model.py` of black-forest-labs/flux.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxPipeline, StableDiffusion3Pipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import save_file
from torch import Tensor

DENOISER = "model.diffusion_model."
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_SD3_BLOCK = {
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn2.to_out.0": "x_block.attn2.proj",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
}
_SD3_OUTSIDE = {
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
}
_FLUX_DOUBLE = {
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
}
_FLUX_OUTSIDE = {"x_embedder": "img_in", "context_embedder": "txt_in", "proj_out": "final_layer.linear"}


@dataclass(frozen=True)
class Rows:
    """Where a layer's weight lies: `rows` rows of the original tensor `key`, from `first` on."""

    key: str
    first: int
    rows: int


def denoiser_rows(denoiser: Any) -> dict[str, Rows]:
    """Each weight that adapters may change, by its layer's name in diffusers."""
    kind = type(denoiser).__name__
    walk = {
        "UNet2DConditionModel": _unet_rows,
        "SD3Transformer2DModel": _sd3_rows,
        "FluxTransformer2DModel": _flux_rows,
    }
    return dict(walk[kind](denoiser))


def original_weights(denoiser: Any) -> dict[str, Tensor]:
    """The weights of those layers as the original code base keeps them."""
    state = denoiser.state_dict()
    rows = denoiser_rows(denoiser)
    parts: dict[str, dict[int, Tensor]] = {}
    for layer, place in rows.items():
        parts.setdefault(place.key, {})[place.first] = state[f"{layer}.weight"]
    return {key: torch.cat([by_row[first] for first in sorted(by_row)]) for key, by_row in parts.items()}


def _layers(denoiser: Any) -> Iterator[tuple[str, int]]:
    for name, module in denoiser.named_modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            yield name, len(module.weight)


def _unet_rows(unet: Any) -> Iterator[tuple[str, Rows]]:
    names = _unet_blocks(len(unet.config.block_out_channels), unet.config.layers_per_block, unet.config.up_block_types)
    for layer, rows in _layers(unet):
        yield layer, Rows(f"{DENOISER}{_rename(layer + '.weight', names)}", 0, rows)


def _stacked(block: str, groups: dict[str, list[str]], sizes: dict[str, int]) -> Iterator[tuple[str, Rows]]:
    for original, layers in groups.items():
        first = 0
        for layer in layers:
            if f"{block}.{layer}" in sizes:
                rows = sizes[f"{block}.{layer}"]
                yield f"{block}.{layer}", Rows(original, first, rows)
                first += rows


def _sd3_rows(transformer: Any) -> Iterator[tuple[str, Rows]]:
    sizes = dict(_layers(transformer))
    for index in range(transformer.config.num_layers):
        block, joint = f"transformer_blocks.{index}", f"{DENOISER}joint_blocks.{index}"
        groups = {
            f"{joint}.x_block.attn.qkv.weight": ["attn.to_q", "attn.to_k", "attn.to_v"],
            f"{joint}.x_block.attn2.qkv.weight": ["attn2.to_q", "attn2.to_k", "attn2.to_v"],
            f"{joint}.context_block.attn.qkv.weight": ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
        }
        yield from _stacked(block, groups, sizes)
        for layer, original in _SD3_BLOCK.items():
            yield from _stacked(block, {f"{joint}.{original}.weight": [layer]}, sizes)
    for layer, original in _SD3_OUTSIDE.items():
        yield layer, Rows(f"{DENOISER}{original}.weight", 0, sizes[layer])


def _flux_rows(transformer: Any) -> Iterator[tuple[str, Rows]]:
    sizes = dict(_layers(transformer))
    for index in range(transformer.config.num_layers):
        block, double = f"transformer_blocks.{index}", f"{DENOISER}double_blocks.{index}"
        groups = {
            f"{double}.img_attn.qkv.weight": ["attn.to_q", "attn.to_k", "attn.to_v"],
            f"{double}.txt_attn.qkv.weight": ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
        }
        yield from _stacked(block, groups, sizes)
        for layer, original in _FLUX_DOUBLE.items():
            yield from _stacked(block, {f"{double}.{original}.weight": [layer]}, sizes)
    for index in range(transformer.config.num_single_layers):
        block, single = f"single_transformer_blocks.{index}", f"{DENOISER}single_blocks.{index}"
        groups = {
            f"{single}.linear1.weight": ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"],
            f"{single}.linear2.weight": ["proj_out"],
            f"{single}.modulation.lin.weight": ["norm.linear"],
        }
        yield from _stacked(block, groups, sizes)
    for layer, original in _FLUX_OUTSIDE.items():
        yield layer, Rows(f"{DENOISER}{original}.weight", 0, sizes[layer])


def write_original_checkpoint(folder: Path, path: Path) -> Path:
    """A Stable Diffusion 1 as one file."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, local_files_only=True)
    tensors = {**unet_tensors(pipeline.unet), **vae_tensors(pipeline.vae)}
    for key, tensor in pipeline.text_encoder.state_dict().items():
        tensors["cond_stage_model.transformer.text_model." + key.removeprefix("text_model.")] = tensor
    return write(tensors, path)


def write_xl_checkpoint(folder: Path, path: Path, *marks: str) -> Path:
    """A Stable Diffusion XL as one file; `marks` are empty tensors by which fine-tunes tell what they predict."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True)
    tensors = {**unet_tensors(pipeline.unet), **vae_tensors(pipeline.vae)}
    for key, tensor in pipeline.text_encoder.state_dict().items():
        tensors["conditioner.embedders.0.transformer.text_model." + key.removeprefix("text_model.")] = tensor
    tensors |= dict(_open_clip(pipeline.text_encoder_2, "conditioner.embedders.1.model."))
    return write(tensors | {mark: torch.zeros(1) for mark in marks}, path)


def write_version_2_checkpoint(folder: Path, path: Path) -> Path:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, local_files_only=True)
    text = dict(_open_clip(pipeline.text_encoder, "cond_stage_model.model."))
    return write({**unet_tensors(pipeline.unet), **vae_tensors(pipeline.vae), **text}, path)


def write_version_3_checkpoint(folder: Path, path: Path, *, with_text: bool = True) -> Path:
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, local_files_only=True)
    tensors = {**_sd3_tensors(pipeline.transformer), **vae_tensors(pipeline.vae)}
    if with_text:
        encoders = {
            "clip_l": pipeline.text_encoder,
            "clip_g": pipeline.text_encoder_2,
            "t5xxl": pipeline.text_encoder_3,
        }
        for name, encoder in encoders.items():
            for key, tensor in encoder.state_dict().items():
                if key != "encoder.embed_tokens.weight":
                    tensors[f"text_encoders.{name}.transformer.{key}"] = tensor
    return write(tensors, path)


def _sd3_tensors(transformer: Any) -> dict[str, Tensor]:
    state = transformer.state_dict()
    tensors = {f"{DENOISER}pos_embed": state["pos_embed.pos_embed"]}
    last = transformer.config.num_layers - 1
    swapped = {"norm_out.linear", f"transformer_blocks.{last}.norm1_context.linear"}  # shift and scale in other order
    stacked: dict[str, list[Tensor]] = {}
    for layer, place in denoiser_rows(transformer).items():
        for kind in ("weight", "bias"):
            tensor = state[f"{layer}.{kind}"]
            if layer in swapped:
                tensor = torch.cat(tensor.chunk(2)[::-1])
            stacked.setdefault(place.key.removesuffix("weight") + kind, []).append(tensor)
    for index in range(last + 1):
        for norm, original in _SD3_BLOCK.items():
            key = f"transformer_blocks.{index}.{norm}.weight"
            if ".norm_" in norm and key in state:
                stacked[f"{DENOISER}joint_blocks.{index}.{original}.weight"] = [state[key]]
    return tensors | {key: torch.cat(parts) for key, parts in stacked.items()}


def flux_tensors(transformer: Any) -> dict[str, Tensor]:
    state = transformer.state_dict()
    stacked: dict[str, list[Tensor]] = {}
    for layer, place in denoiser_rows(transformer).items():
        for kind in ("weight", "bias"):
            stacked.setdefault(place.key.removesuffix("weight") + kind, []).append(state[f"{layer}.{kind}"])
    for ours, theirs in {"timestep": "time", "text": "vector", "guidance": "guidance"}.items():
        for number, side in ((1, "in"), (2, "out")):
            for kind in ("weight", "bias"):
                key = f"time_text_embed.{ours}_embedder.linear_{number}.{kind}"
                if key in state:  # schnell has no guidance
                    stacked[f"{DENOISER}{theirs}_in.{side}_layer.{kind}"] = [state[key]]
    for kind in ("weight", "bias"):
        shift_last = state[f"norm_out.linear.{kind}"].chunk(2)[::-1]
        stacked[f"{DENOISER}final_layer.adaLN_modulation.1.{kind}"] = list(shift_last)
    stacked |= {key: [tensor] for key, tensor in _flux_norms(transformer.config, state)}
    return {key: torch.cat(parts) for key, parts in stacked.items()}


def _flux_norms(config: Any, state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    norms = {"norm_q": "img_attn.norm.query_norm", "norm_k": "img_attn.norm.key_norm"}
    norms |= {"norm_added_q": "txt_attn.norm.query_norm", "norm_added_k": "txt_attn.norm.key_norm"}
    for index in range(config.num_layers):
        for ours, theirs in norms.items():
            yield (
                f"{DENOISER}double_blocks.{index}.{theirs}.scale",
                state[f"transformer_blocks.{index}.attn.{ours}.weight"],
            )
    for index in range(config.num_single_layers):
        for ours, theirs in (("norm_q", "query_norm"), ("norm_k", "key_norm")):
            tensor = state[f"single_transformer_blocks.{index}.attn.{ours}.weight"]
            yield f"{DENOISER}single_blocks.{index}.norm.{theirs}.scale", tensor


def _open_clip(encoder: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """A CLIP text encoder as OpenCLIP keeps it: queries, keys and values stacked."""
    state = {key.removeprefix("text_model."): tensor for key, tensor in encoder.state_dict().items()}
    yield f"{prefix}positional_embedding", state["embeddings.position_embedding.weight"]
    yield f"{prefix}token_embedding.weight", state["embeddings.token_embedding.weight"]
    width = state["embeddings.position_embedding.weight"].shape[-1]
    projection = state.get("text_projection.weight", torch.eye(width))
    yield f"{prefix}text_projection", projection.T
    names = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "self_attn.out_proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    for kind in ("weight", "bias"):
        yield f"{prefix}ln_final.{kind}", state[f"final_layer_norm.{kind}"]
        for index in range(encoder.config.num_hidden_layers):
            ours, theirs = f"encoder.layers.{index}.", f"{prefix}transformer.resblocks.{index}."
            heads = [state[f"{ours}self_attn.{head}_proj.{kind}"] for head in "qkv"]
            yield f"{theirs}attn.in_proj_{kind}", torch.cat(heads)
            for name, original in names.items():
                yield f"{theirs}{original}.{kind}", state[f"{ours}{name}.{kind}"]


def write_flux_checkpoint(folder: Path, path: Path) -> Path:
    """FLUX.1 with its encoders, as ComfyUI's all-in-one files have it."""
    pipeline = FluxPipeline.from_pretrained(folder, local_files_only=True)
    tensors = flux_tensors(pipeline.transformer)
    for key, tensor in vae_tensors(pipeline.vae).items():
        tensors["vae." + key.removeprefix("first_stage_model.")] = tensor
    for key, tensor in pipeline.text_encoder.state_dict().items():
        tensors["text_encoders.clip_l.transformer.text_model." + key.removeprefix("text_model.")] = tensor
    for key, tensor in pipeline.text_encoder_2.state_dict().items():
        if key != "encoder.embed_tokens.weight":
            tensors[f"text_encoders.t5xxl.transformer.{key}"] = tensor
    return write(tensors, path)


@contextmanager
def flux_of_width(width: int) -> Iterator[None]:
    """diffusers' reader of FLUX checkpoints has the published width written in: let it be another for a while."""
    from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers as convert

    published = convert.__code__
    assert published.co_consts.count(3072) == 1
    convert.__code__ = published.replace(co_consts=tuple(width if c == 3072 else c for c in published.co_consts))
    try:
        yield
    finally:
        convert.__code__ = published


def write(tensors: dict[str, Tensor], path: Path) -> Path:
    save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, path)
    return path


def unet_tensors(unet: Any) -> dict[str, Tensor]:
    names = _unet_blocks(len(unet.config.block_out_channels), unet.config.layers_per_block, unet.config.up_block_types)
    return {DENOISER + _rename(key, names): tensor for key, tensor in unet.state_dict().items()}


def vae_tensors(vae: Any) -> dict[str, Tensor]:
    levels = len(vae.config.block_out_channels)
    return {"first_stage_model." + _vae_name(key, levels): tensor for key, tensor in vae.state_dict().items()}


def _unet_blocks(levels: int, layers: int, up_types: tuple[str, ...]) -> dict[str, str]:
    names = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }
    index = 1
    for level in range(levels):
        for layer in range(layers):
            names[f"down_blocks.{level}.resnets.{layer}"] = f"input_blocks.{index}.0"
            names[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{index}.1"
            index += 1
        if level < levels - 1:
            names[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{index}.0.op"
            index += 1
    index = 0
    for level in range(levels):
        attends = "CrossAttn" in up_types[level]
        for layer in range(layers + 1):
            names[f"up_blocks.{level}.resnets.{layer}"] = f"output_blocks.{index}.0"
            names[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{index}.1"
            index += 1
        names[f"up_blocks.{level}.upsamplers.0"] = f"output_blocks.{index - 1}.{2 if attends else 1}"
    return names


def _rename(key: str, names: dict[str, str]) -> str:
    prefix = max((name for name in names if key.startswith(name + ".")), key=len)
    rest = key.removeprefix(prefix + ".")
    if "resnets" in prefix:
        part, _, leaf = rest.partition(".")
        rest = f"{_UNET_RESNET[part]}.{leaf}"
    return f"{names[prefix]}.{rest}"


def _vae_name(key: str, levels: int) -> str:
    for level in range(levels):
        key = key.replace(f"encoder.down_blocks.{level}.", f"encoder.down.{level}.")
        key = key.replace(f"decoder.up_blocks.{level}.", f"decoder.up.{levels - 1 - level}.")
    for name, original in (
        ("group_norm", "norm"),
        ("to_q", "q"),
        ("to_k", "k"),
        ("to_v", "v"),
        ("to_out.0", "proj_out"),
    ):
        key = key.replace(f"mid_block.attentions.0.{name}.", f"mid.attn_1.{original}.")
    key = key.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
    key = key.replace(".resnets.", ".block.").replace("conv_shortcut", "nin_shortcut")
    key = key.replace("downsamplers.0.conv", "downsample.conv").replace("upsamplers.0.conv", "upsample.conv")
    return key.replace("conv_norm_out", "norm_out")
