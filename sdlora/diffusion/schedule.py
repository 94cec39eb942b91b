"""Forward process q(x_t | x_0): the shares of signal and noise at each timestep.

Source: Ho et al. 2020, arXiv:2006.11239, equation 4: x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise, with
a_t = prod_{s <= t} (1 - beta_s), called `alphas_cumprod` here and in diffusers.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

BetaSchedule = Literal["linear", "scaled_linear"]


def alphas_cumprod(
    beta_start: float, beta_end: float, num_train_timesteps: int, beta_schedule: BetaSchedule = "scaled_linear"
) -> Tensor:
    """Compute the (T,) share of signal power at each timestep, falling from nearly 1 to nearly 0.

    "scaled_linear" is the schedule of Stable Diffusion: the square roots of the betas are equally spaced.

    Raises:
        ValueError: not 0 < beta_start <= beta_end < 1, or fewer than one timestep.
    """
    if not 0 < beta_start <= beta_end < 1:
        raise ValueError(f"betas must satisfy 0 < beta_start <= beta_end < 1, got {beta_start} and {beta_end}.")
    if num_train_timesteps < 1:
        raise ValueError(f"num_train_timesteps must be >= 1, got {num_train_timesteps}.")
    if beta_schedule == "scaled_linear":
        betas = torch.linspace(beta_start**0.5, beta_end**0.5, num_train_timesteps, dtype=torch.float32).square()
    else:
        betas = torch.linspace(beta_start, beta_end, num_train_timesteps, dtype=torch.float32)
    return (1 - betas).cumprod(0)


def signal_to_noise_ratio(alphas_cumprod: Tensor) -> Tensor:
    """Compute the power ratio a / (1 - a), not in dB, in [0, inf]; 0 at zero terminal SNR."""
    return alphas_cumprod / (1 - alphas_cumprod)


def add_noise(latents: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """Mix latents with noise at level `alphas_cumprod`: (B, C, H, W), (B, C, H, W), (B,) -> (B, C, H, W)."""
    level = per_image(alphas_cumprod, latents)
    return level.sqrt() * latents + (1 - level).sqrt() * noise


def draw_timesteps(batch_size: int, num_train_timesteps: int, generator: torch.Generator) -> Tensor:
    """Draw the timesteps of one batch, (B,) in [0, T): uniform, one in each of B equal strata.

    Each batch covers all noise levels, so the loss varies less than with independent draws; the expectation is the
    same.
    """
    offsets = torch.rand(batch_size, generator=generator)
    strata = torch.arange(batch_size) + offsets
    return (strata * (num_train_timesteps / batch_size)).long().clamp(max=num_train_timesteps - 1)


def draw_noise(shape: tuple[int, ...], generator: torch.Generator, offset: float = 0.0) -> Tensor:
    """Draw normal noise of `shape` = (B, C, H, W), plus `offset` times one normal number per image and channel.

    The offset lets the model change the overall brightness of an image.
    Source: Guttenberg 2023, "Diffusion with Offset Noise".
    """
    noise = torch.randn(shape, generator=generator)
    if offset:
        noise = noise + offset * torch.randn((*shape[:2], *(1,) * (len(shape) - 2)), generator=generator)
    return noise


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """Reshape (B,) values to (B, 1, ..., 1), to multiply a batch `like` (B, ...)."""
    return values.to(like.dtype).view(-1, *(1,) * (like.ndim - 1))
