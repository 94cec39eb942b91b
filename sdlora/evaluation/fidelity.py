"""How faithfully the model keeps real images: through the autoencoder, and through noise and back.

Neither needs a judge beside the image itself, so both work at any number of images and move little by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from sdlora.core.errors import EvaluationError
from sdlora.diffusion.seeds import step_generator
from sdlora.models.encode import decode_latents, encode_images
from sdlora.models.precision import autocast, probe_precision
from sdlora.models.stable_diffusion import StableDiffusion

_MAX_PSNR_DB = 60.0  # an exact copy has no noise at all; its infinite PSNR would swallow the mean of the others
_SSIM_WINDOW_PX = 11


def psnr_per_image(images_uint8: Tensor, reference_uint8: Tensor) -> Tensor:
    """(N, 3, H, W) twice, in [0, 255] -> (N,) peak signal-to-noise ratios in dB, at most 60."""
    psnr = peak_signal_noise_ratio(
        images_uint8.float(), reference_uint8.float(), data_range=255.0, reduction="none", dim=(1, 2, 3)
    )
    return psnr.clamp(max=_MAX_PSNR_DB)


def ssim_per_image(images_uint8: Tensor, reference_uint8: Tensor) -> Tensor:
    """(N, 3, H, W) twice, in [0, 255] -> (N,) structural similarities, 1 for equal images.

    Only windows that lie inside the image count, as published: torchmetrics' own mean includes windows over a mirrored
    border, which scores 0.03 higher on small images.
    Source: Wang et al. 2004, "Image quality assessment", section III-C: an 11 x 11 Gaussian window, sigma 1.5.

    Raises:
        EvaluationError: an image has no room for a window.
    """
    if min(images_uint8.shape[-2:]) < _SSIM_WINDOW_PX:
        height, width = images_uint8.shape[-2:]
        raise EvaluationError(f"SSIM needs images of {_SSIM_WINDOW_PX} px or more a side, got {width} x {height} px.")
    _, similarity = structural_similarity_index_measure(
        images_uint8.double(),
        reference_uint8.double(),
        sigma=1.5,
        data_range=255.0,
        reduction="none",
        return_full_image=True,
    )
    border = _SSIM_WINDOW_PX // 2
    inside = cast("Tensor", similarity)[..., border:-border, border:-border]
    return inside.flatten(1).mean(1)


def reconstruct(model: StableDiffusion, images_uint8: Tensor) -> Tensor:
    """Encode to the latent distribution's mean and decode: (N, 3, H, W) uint8 -> the same."""
    return decode_latents(model.autoencoder, encode_images(model.autoencoder, images_uint8))


@torch.no_grad()
def renoise_and_denoise(
    model: StableDiffusion,
    images_uint8: Tensor,
    captions: Sequence[str],
    seeds: Sequence[int],
    fraction: float,
    steps: int,
) -> Tensor:
    """Turn images part of the way to noise and let the model restore them with their caption.

    A deterministic sampler (DDIM, or Euler for a flow) without guidance: the question is what the denoiser
    believes, not how a sampler flatters it. Every image has its own noise, from its own seed.

    Args:
        model: with or without an adapter.
        images_uint8: (B, 3, H, W) in [0, 255].
        captions: B captions.
        seeds: B seeds of the noise.
        fraction: how far to noise, in (0, 1): the timestep as a share of the training timesteps.
        steps: sampler steps from there back to an image.

    Returns:
        (B, 3, H, W) uint8 restored images.
    """
    scheduler, timesteps = model.family.restoring_schedule(model.scheduler, fraction, steps)
    latents = encode_images(model.autoencoder, images_uint8)  # (B, C, h, w)
    noise = torch.stack([torch.randn(latents.shape[1:], generator=step_generator(s, 0, "renoise")) for s in seeds])
    latents = model.family.noised(scheduler, latents, noise, timesteps[0]).to(model.device)
    conditioning = model.encode_prompts(captions)
    precision = probe_precision(model.device.type).precision
    for timestep in timesteps:
        with autocast(model.device.type, precision):
            predicted = model.family.predict(model.denoiser, latents, timestep, conditioning)
        latents = scheduler.step(predicted.float(), timestep, latents).prev_sample
    return decode_latents(model.autoencoder, latents)
