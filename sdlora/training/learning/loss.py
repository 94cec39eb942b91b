"""Training loss of a batch: the squared error of the network's prediction, per image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sdlora.core.refs import BaseModelRef, Precision
from sdlora.diffusion.objectives import Objective
from sdlora.models import parts
from sdlora.models.families import family_of
from sdlora.models.families.base import Family
from sdlora.models.precision import autocast
from sdlora.training.inputs.batches import Batch
from sdlora.training.learning.trained_text import TrainedText


@dataclass(frozen=True)
class DenoisingLoss:
    """Loss with its per-timestep tables, computed once.

    Attributes:
        family: calls the denoiser.
        objective: noise levels and targets, with tables on the training device.
        weights: (T,) loss weights by timestep.
        precision: precision of the denoiser.
        text: the text encoders if they are trained; batches then hold token ids.
    """

    family: Family
    objective: Objective
    weights: Tensor
    precision: Precision
    text: TrainedText | None = None

    @classmethod
    def of_base(
        cls, base: BaseModelRef, min_snr_gamma: float | None, precision: Precision, device: torch.device
    ) -> DenoisingLoss:
        family = family_of(base.folder)
        objective = family.objective(parts.load_scheduler(base)).to(device)
        return cls(family, objective, objective.loss_weights(min_snr_gamma), precision)

    def weighted(self, denoiser: nn.Module, batch: Batch) -> Tensor:
        """Compute the scalar to differentiate: the weighted squared errors, each times its image's share of the step.

        The sum over the batches of a step is the loss of the step, for any division into batches.
        """
        return self.by_group(denoiser, batch).sum()

    def by_group(self, denoiser: nn.Module, batch: Batch, groups: int = 1) -> Tensor:
        """Compute the weighted loss of each group of the step, (G,)."""
        errors = self.per_image(denoiser, batch) * self.weights[batch.timesteps]
        if batch.loss_weights is None:
            return errors.mean()[None]
        errors = errors * batch.loss_weights
        if batch.groups is None:
            return errors.sum()[None]
        return torch.stack([errors[batch.groups == group].sum() for group in range(groups)])

    def per_image(self, denoiser: nn.Module, batch: Batch) -> Tensor:
        """Compute the mean squared error per image, (B,), with position weights and without timestep weights."""
        noisy = self.objective.add_noise(batch.latents, batch.noise, batch.timesteps)  # (B, C, h, w)
        target = self.objective.target(batch.latents, batch.noise, batch.timesteps)
        timesteps = self.objective.network_timesteps(batch.timesteps)
        conditioning = self.text.conditioning(batch.conditioning) if self.text else batch.conditioning
        with autocast(batch.latents.device.type, self.precision):
            prediction = self.family.predict(denoiser, noisy, timesteps, conditioning)
        squares = (prediction.float() - target).square()  # (B, C, h, w)
        if batch.position_weights is not None:
            squares = squares * batch.position_weights
        errors: Tensor = squares.mean((1, 2, 3))
        return errors
