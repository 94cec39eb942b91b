"""Write a diffusers Stable Diffusion as one checkpoint with the key names of the original code base."""

from __future__ import annotations

from pathlib import Path

from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor

_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def write_original_checkpoint(folder: Path, path: Path) -> Path:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, local_files_only=True)
    tensors: dict[str, Tensor] = {}
    unet = pipeline.unet
    names = _unet_blocks(len(unet.config.block_out_channels), unet.config.layers_per_block, unet.config.up_block_types)
    for key, tensor in unet.state_dict().items():
        tensors["model.diffusion_model." + _rename(key, names)] = tensor
    levels = len(pipeline.vae.config.block_out_channels)
    for key, tensor in pipeline.vae.state_dict().items():
        tensors["first_stage_model." + _vae_name(key, levels)] = tensor
    for key, tensor in pipeline.text_encoder.state_dict().items():
        tensors["cond_stage_model.transformer.text_model." + key.removeprefix("text_model.")] = tensor
    save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, path)
    return path


def _unet_blocks(levels: int, layers: int, up_types: tuple[str, ...]) -> dict[str, str]:
    names = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
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
    key = key.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
    key = key.replace(".resnets.", ".block.").replace("conv_shortcut", "nin_shortcut")
    key = key.replace("downsamplers.0.conv", "downsample.conv").replace("upsamplers.0.conv", "upsample.conv")
    return key.replace("conv_norm_out", "norm_out")
