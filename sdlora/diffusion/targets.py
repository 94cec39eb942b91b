"""Regression targets of denoising diffusion."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from sdlora.diffusion.schedule import per_image

PredictionType = Literal["epsilon", "v_prediction", "sample"]
PREDICTION_TYPES: tuple[str, ...] = get_args(PredictionType)


def training_target(latents: Tensor, noise: Tensor, alphas_cumprod: Tensor, prediction_type: PredictionType) -> Tensor:
    """Compute the regression target of one batch.

    Args:
        latents: (B, C, H, W) clean latents x_0.
        noise: (B, C, H, W) the noise that was mixed in.
        alphas_cumprod: (B,) the noise level a of each image, in [0, 1].
        prediction_type: output of the network.
    Returns:
        (B, C, H, W): the noise, the velocity sqrt(a) noise - sqrt(1 - a) x_0, or the latents themselves.
    Raises:
        ValueError: an unknown prediction type.
    Source: Salimans & Ho 2022, arXiv:2202.00512, appendix D (velocity).
    """
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        level = per_image(alphas_cumprod, latents)
        return level.sqrt() * noise - (1 - level).sqrt() * latents
    if prediction_type == "sample":
        return latents
    raise ValueError(f"prediction_type must be one of {PREDICTION_TYPES}, got {prediction_type!r}.")
