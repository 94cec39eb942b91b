"""The forward process q(x_t | x_0): how much signal and how much noise each timestep holds.

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
    """The share of signal power left at each timestep, (T,) falling from nearly 1 to nearly 0.

    "scaled_linear" is Stable Diffusion's: the square roots of the betas are equally spaced.

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
    """The power ratio a / (1 - a), not in dB, in [0, inf]; 0 at zero terminal SNR."""
    return alphas_cumprod / (1 - alphas_cumprod)


def add_noise(latents: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """Latents at noise level `alphas_cumprod`: (B, C, H, W), (B, C, H, W), (B,) -> (B, C, H, W)."""
    level = per_image(alphas_cumprod, latents)
    return level.sqrt() * latents + (1 - level).sqrt() * noise


def draw_timesteps(batch_size: int, num_train_timesteps: int, generator: torch.Generator) -> Tensor:
    """Timesteps of one batch, (B,) in [0, T): uniform, with one draw in each of B equal strata.

    Each batch covers all noise levels, so its loss wanders less than with independent draws, and the
    expectation is the same.
    """
    offsets = torch.rand(batch_size, generator=generator)
    strata = torch.arange(batch_size) + offsets
    return (strata * (num_train_timesteps / batch_size)).long().clamp(max=num_train_timesteps - 1)


def draw_noise(shape: tuple[int, ...], generator: torch.Generator, offset: float = 0.0) -> Tensor:
    """Standard normal noise of `shape` = (B, C, H, W), plus one normal number times `offset` per image and channel.

    The offset lets the model move an image's overall brightness (Guttenberg 2023, "Diffusion with Offset Noise").
    """
    noise = torch.randn(shape, generator=generator)
    if offset:
        noise = noise + offset * torch.randn((*shape[:2], *(1,) * (len(shape) - 2)), generator=generator)
    return noise


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """(B,) values shaped (B, 1, ..., 1) to multiply a batch `like` (B, ...)."""
    return values.to(like.dtype).view(-1, *(1,) * (like.ndim - 1))
