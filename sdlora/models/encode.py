"""Encoding of images to latents and back, and of prompts to embeddings; in fp32, in batches, without gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from sdlora.models.families.base import TextPart


@torch.no_grad()
def encode_images(autoencoder: AutoencoderKL, images_uint8: Tensor, batch_size: int = 32) -> Tensor:
    """Encode images to scaled latents, the mean of the posterior without sampling noise.

    The posterior's deviation is far below the diffusion noise, and a fixed latent can be cached.

    Args:
        autoencoder: autoencoder on the device to use.
        images_uint8: (N, 3, H, W) in [0, 255].
        batch_size: images encoded at a time.

    Returns:
        (N, C, H/f, W/f) float32 on the CPU; f is the autoencoder's reduction (4 or 8).
    """
    config = autoencoder.config
    means = [
        autoencoder.encode(batch.to(autoencoder.device).float() / 127.5 - 1).latent_dist.mean.cpu()
        for batch in images_uint8.split(batch_size)
    ]
    latents = torch.cat(means)
    return (latents - (config.shift_factor or 0.0)) * config.scaling_factor  # type: ignore[no-any-return]


@torch.no_grad()
def decode_latents(autoencoder: AutoencoderKL, latents: Tensor, batch_size: int = 32) -> Tensor:
    """Decode (N, C, h, w) scaled latents to (N, 3, H, W) uint8 images on the CPU.

    All arithmetic is fp32: bf16 has 8 bits of mantissa and rounds the image to about half a grey level.
    """
    config = autoencoder.config
    unscaled = latents.to(autoencoder.device, torch.float32) / config.scaling_factor + (config.shift_factor or 0.0)
    images = [to_uint8(autoencoder.decode(batch).sample) for batch in unscaled.split(batch_size)]
    return torch.cat(images).cpu()


@torch.no_grad()
def encode_text(
    part: TextPart, tokenizer: Any, encoder: nn.Module, prompts: Sequence[str], batch_size: int = 64
) -> dict[str, Tensor]:
    """Encode prompts with one text encoder: outputs by name, each (N, ...) float32 on the CPU."""
    device = next(encoder.parameters()).device
    batches = [
        part.outputs(encoder, part.token_ids(tokenizer, prompts[start : start + batch_size]).to(device))
        for start in range(0, len(prompts), batch_size)
    ]
    return {name: torch.cat([batch[name].float().cpu() for batch in batches]) for name in part.output_names}


def to_uint8(pixels: Tensor) -> Tensor:
    """Convert float pixels in [-1, 1] to uint8 in [0, 255], rounded to nearest."""
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
