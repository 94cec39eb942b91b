"""Training objectives: noise levels, noisy latents and targets by timestep, of diffusion and of rectified flow.

Both objectives number their noise levels 0 .. T-1, from nearly clean to nearly pure noise. Batches, validation and
loss weights therefore treat both alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from sdlora.diffusion.loss_weights import min_snr_weights
from sdlora.diffusion.schedule import add_noise, draw_timesteps, per_image, signal_to_noise_ratio
from sdlora.diffusion.targets import PredictionType, training_target

FlowWeighting = Literal["none", "sigma_sqrt", "cosmap"]


class Objective(Protocol):
    """Noise schedule of a base model and its regression target.

    `timesteps` are (B,) int64 in [0, num_train_timesteps) on the objective's device.
    """

    @property
    def num_train_timesteps(self) -> int: ...
    @property
    def prediction(self) -> str:
        """Output of the network: "epsilon", "v_prediction", "sample" or "flow"."""
        ...

    def to(self, device: torch.device) -> Objective: ...
    def draw_timesteps(self, batch_size: int, generator: torch.Generator) -> Tensor:
        """Draw (B,) int64 timesteps on the CPU, one in each of B equally likely strata."""
        ...

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor: ...
    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor: ...
    def network_timesteps(self, timesteps: Tensor) -> Tensor:
        """Convert timesteps to the numbers that the network was trained with."""
        ...

    def loss_weights(self, min_snr_gamma: float | None) -> Tensor:
        """Return the (T,) weights of the squared error at each timestep."""
        ...


@dataclass(frozen=True)
class DenoisingObjective:
    """Denoising diffusion (Ho et al. 2020, arXiv:2006.11239), as Stable Diffusion 1, 2 and XL were trained.

    Attributes:
        alphas_cumprod: (T,) share of signal power left at each timestep.
        prediction: what the network outputs.
    """

    alphas_cumprod: Tensor
    prediction: PredictionType

    @property
    def num_train_timesteps(self) -> int:
        return len(self.alphas_cumprod)

    def to(self, device: torch.device) -> DenoisingObjective:
        return replace(self, alphas_cumprod=self.alphas_cumprod.to(device))

    def draw_timesteps(self, batch_size: int, generator: torch.Generator) -> Tensor:
        return draw_timesteps(batch_size, self.num_train_timesteps, generator)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return add_noise(latents, noise, self.alphas_cumprod[timesteps])

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return training_target(latents, noise, self.alphas_cumprod[timesteps], self.prediction)

    def network_timesteps(self, timesteps: Tensor) -> Tensor:
        return timesteps

    def loss_weights(self, min_snr_gamma: float | None) -> Tensor:
        if min_snr_gamma is None:
            return torch.ones_like(self.alphas_cumprod)
        return min_snr_weights(signal_to_noise_ratio(self.alphas_cumprod), min_snr_gamma, self.prediction)


@dataclass(frozen=True)
class FlowObjective:
    """Rectified flow: the network predicts the velocity noise - x_0 of the line x_s = (1 - s) x_0 + s noise.

    Training visits the noise levels with logit-normal density, most often in the middle, where the task is hard.
    Source: Liu et al. 2022, arXiv:2209.03003; Esser et al. 2024, arXiv:2403.03206, sections 3.1 and 5.3.2 (shift).

    Attributes:
        sigmas: (T,) share of noise at each timestep, rising to 1, after the base's timestep shift.
        logit_mean, logit_std: parameters of the normal distribution whose sigmoid, times T, is the timestep. A
            positive mean visits the noisy end more often.
        weighting: "none", or "sigma_sqrt" or "cosmap" as in the appendix of the second source.
    """

    sigmas: Tensor
    logit_mean: float = 0.0
    logit_std: float = 1.0
    weighting: FlowWeighting = "none"

    @classmethod
    def shifted(cls, num_train_timesteps: int, shift: float) -> FlowObjective:
        """Build an objective of equally spaced levels s, shifted towards noise: shift s / (1 + (shift - 1) s)."""
        evenly_spaced = torch.arange(1, num_train_timesteps + 1, dtype=torch.float32) / num_train_timesteps
        return cls(shift * evenly_spaced / (1 + (shift - 1) * evenly_spaced))

    @property
    def num_train_timesteps(self) -> int:
        return len(self.sigmas)

    @property
    def prediction(self) -> str:
        return "flow"

    def to(self, device: torch.device) -> FlowObjective:
        return replace(self, sigmas=self.sigmas.to(device))

    def draw_timesteps(self, batch_size: int, generator: torch.Generator) -> Tensor:
        strata = (torch.arange(batch_size) + torch.rand(batch_size, generator=generator)) / batch_size
        # ndtri maps uniform strata to the normal distribution. It is infinite at 0 and 1, where sigmoid is finite.
        positions = torch.sigmoid(self.logit_mean + self.logit_std * torch.special.ndtri(strata))
        return (positions * self.num_train_timesteps).long().clamp(max=self.num_train_timesteps - 1)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        sigma = per_image(self.sigmas[timesteps], latents)
        return (1 - sigma) * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return noise - latents

    def network_timesteps(self, timesteps: Tensor) -> Tensor:
        return self.sigmas[timesteps] * self.num_train_timesteps

    def loss_weights(self, min_snr_gamma: float | None) -> Tensor:
        """Return the (T,) weights of `weighting`; min-SNR applies to the denoising loss and is ignored."""
        if self.weighting == "sigma_sqrt":
            return self.sigmas**-2
        if self.weighting == "cosmap":
            return 2 / (math.pi * (1 - 2 * self.sigmas + 2 * self.sigmas**2))
        return torch.ones_like(self.sigmas)
