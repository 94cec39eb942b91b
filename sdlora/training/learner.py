"""The part of a run that changes: the adapter's tensors, the optimiser and the moving average."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from sdlora.checkpoints import Checkpoint, load_optimizer_tensors, optimizer_tensors
from sdlora.errors import TrainingError
from sdlora.lora.attach import adapter_parameters
from sdlora.training.config import TrainingConfig
from sdlora.training.rate import rate_factor


class Learner:
    """Updates the adapter that is attached to a UNet.

    Raises:
        TrainingError: nothing is trainable.
    """

    def __init__(self, unet: UNet2DConditionModel, config: TrainingConfig) -> None:
        self.config = config
        self.parameters = adapter_parameters(unet)
        # A list, made once: an iterator consumed by the optimiser would leave nothing to clip, silently.
        self.tensors: list[Tensor] = list(self.parameters.values())
        if not self.tensors:
            raise TrainingError("training: the model has no trainable adapter. Attach one before training.")
        self.optimizer = torch.optim.AdamW(
            self.tensors, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.average = [tensor.detach().clone() for tensor in self.tensors] if config.ema_decay else []

    def update(self, step: int) -> Tensor:
        """Clip the gradients, take one optimiser step, update the average; returns the norm before clipping."""
        config = self.config
        self.optimizer.param_groups[0]["lr"] = self.rate(step)
        norm = torch.nn.utils.clip_grad_norm_(self.tensors, config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if config.ema_decay:
            # Rising to its limit, so that the average does not drag the zero start along in a short run.
            decay = min(config.ema_decay, (step + 1) / (step + 10))
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.tensors, 1 - decay)
        return norm.detach()

    def rate(self, step: int) -> float:
        config = self.config
        return config.learning_rate * rate_factor(step, config.steps, config.warmup_steps)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """While active, the model holds the moving average, if one is kept: what is measured and saved."""
        if not self.average:
            yield
            return
        current = [tensor.detach().clone() for tensor in self.tensors]
        self._assign(self.average)
        try:
            yield
        finally:
            self._assign(current)

    def all_finite(self) -> bool:
        return all(bool(tensor.isfinite().all()) for tensor in (*self.tensors, *self.average))

    def state(self) -> dict[str, Tensor]:
        """Everything a checkpoint must hold, by name."""
        named: dict[str, Tensor] = {f"adapter.{name}": tensor for name, tensor in self.parameters.items()}
        named |= {f"average.{name}": tensor for name, tensor in zip(self.parameters, self.average, strict=False)}
        return named | optimizer_tensors(self.optimizer)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint's state."""
        self._assign([checkpoint.tensors[f"adapter.{name}"] for name in self.parameters])
        for name, average in zip(self.parameters, self.average, strict=False):
            average.copy_(checkpoint.tensors[f"average.{name}"])
        load_optimizer_tensors(self.optimizer, checkpoint.tensors)

    @torch.no_grad()
    def _assign(self, values: list[Tensor]) -> None:
        for tensor, value in zip(self.tensors, values, strict=True):
            tensor.copy_(value)
