"""The training loss of one batch: how far the network's prediction is from the target, per image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from sdlora.diffusion.loss_weights import min_snr_weights
from sdlora.diffusion.schedule import add_noise, signal_to_noise_ratio
from sdlora.diffusion.targets import PredictionType, training_target
from sdlora.models.precision import Precision, autocast
from sdlora.training.batches import Batch


@dataclass(frozen=True)
class DenoisingLoss:
    """The loss with its per-timestep tables, computed once.

    Attributes:
        alphas_cumprod: (T,) of the base's noise schedule.
        weights: (T,) min-SNR weights, or ones.
    """

    alphas_cumprod: Tensor
    weights: Tensor
    prediction_type: PredictionType
    precision: Precision

    @classmethod
    def of_base(
        cls, scheduler: DDIMScheduler, min_snr_gamma: float | None, precision: Precision, device: torch.device
    ) -> DenoisingLoss:
        levels: Tensor = scheduler.alphas_cumprod.to(device, torch.float32)
        kind: PredictionType = scheduler.config.prediction_type
        weights = torch.ones_like(levels)
        if min_snr_gamma is not None:
            weights = min_snr_weights(signal_to_noise_ratio(levels), min_snr_gamma, kind)
        return cls(levels, weights, kind, precision)

    @property
    def num_train_timesteps(self) -> int:
        return len(self.alphas_cumprod)

    def weighted(self, unet: nn.Module, batch: Batch) -> Tensor:
        """What is differentiated: the mean of the weighted squared errors, a scalar."""
        return (self.per_image(unet, batch) * self.weights[batch.timesteps]).mean()

    def per_image(self, unet: nn.Module, batch: Batch) -> Tensor:
        """Mean squared error of the prediction, unweighted: (B,)."""
        levels = self.alphas_cumprod[batch.timesteps]  # (B,)
        noisy = add_noise(batch.latents, batch.noise, levels)  # (B, C, h, w)
        target = training_target(batch.latents, batch.noise, levels, self.prediction_type)
        with autocast(batch.latents.device.type, self.precision):
            prediction = unet(noisy, batch.timesteps, batch.embeddings, return_dict=False)[0]
        errors: Tensor = (prediction.float() - target).square().mean((1, 2, 3))
        return errors
