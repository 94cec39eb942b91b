"""Learner: the trained tensors, the optimiser and the moving average of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sdlora.core.checkpoints import Checkpoint, load_optimizer_tensors, optimizer_groups, optimizer_tensors
from sdlora.core.errors import TrainingError
from sdlora.training.config import ResolvedTraining
from sdlora.training.learning.lr_schedule import lr_schedule
from sdlora.training.learning.optimizers import make_optimizer


@dataclass(frozen=True)
class TrainedGroup:
    """Parameters that share a learning rate.

    Attributes:
        parameters: by name; names are unique over all groups.
        learning_rate: peak of the schedule.
        rate_name: name of the reported rate.
    """

    parameters: Mapping[str, nn.Parameter]
    learning_rate: float
    rate_name: str = "learning_rate"


class Learner:
    """Optimiser and moving average over groups of parameters.

    Raises:
        TrainingError: no parameter is trainable.
        ConfigError: the optimiser's library is not installed.
    """

    def __init__(self, groups: Sequence[TrainedGroup], config: ResolvedTraining) -> None:
        self.config = config
        self.groups = groups
        self.parameters = {name: parameter for group in groups for name, parameter in group.parameters.items()}
        # A list: the optimiser would consume an iterator, and clipping would silently see no tensors.
        self.tensors: list[Tensor] = list(self.parameters.values())
        if not self.tensors:
            raise TrainingError("training: the model has no trainable adapter. Attach one before training.")
        self.optimizer = make_optimizer(
            [{"params": list(group.parameters.values()), "lr": group.learning_rate} for group in groups], config
        )
        # In fp16 small gradients would underflow, so the scaler multiplies the loss; in other precisions the scaler
        # is disabled.
        self.scaler = torch.amp.GradScaler(self.tensors[0].device.type, enabled=config.precision == "fp16")
        self.average = [tensor.detach().clone() for tensor in self.tensors] if config.ema_decay else []

    def scaled(self, loss: Tensor) -> Tensor:
        """Scale the loss for the backward pass in fp16; in other precisions return it unchanged."""
        scaled: Tensor = self.scaler.scale(loss)
        return scaled

    @property
    def loss_scale(self) -> float | None:
        """Current factor of the loss; None without loss scaling."""
        return float(self.scaler.get_scale()) if self.scaler.is_enabled() else None

    def update(self, step: int) -> Tensor:
        """Clip the gradients, take one optimiser step, update the average; return the norm before clipping.

        If a scaled loss overflowed, no parameter changes, the scale is halved, and the norm counts as 0.
        """
        config = self.config
        for settings, group in zip(self.optimizer.param_groups, self.groups, strict=True):
            settings["lr"] = group.learning_rate * self._schedule(step)
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.tensors, config.max_grad_norm)
        if self.scaler.is_enabled():
            norm = torch.where(norm.isfinite(), norm, 0.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if config.ema_decay:
            # The decay rises to its limit, so that the zero start does not weigh on the average of a short run.
            decay = min(config.ema_decay, (step + 1) / (step + 10))
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.tensors, 1 - decay)
        return norm.detach()

    def reported(self, step: int) -> dict[str, float]:
        """Report each group's rate at `step` (with Prodigy the estimated rate), and the loss scale if there is one."""
        rates = {
            group.rate_name: self._rate(group, settings, step)
            for group, settings in zip(self.groups, self.optimizer.param_groups, strict=True)
        }
        return rates | ({"loss_scale": self.loss_scale} if self.loss_scale is not None else {})

    def _rate(self, group: TrainedGroup, settings: Mapping[str, Any], step: int) -> float:
        rate = group.learning_rate * self._schedule(step)
        if self.config.optimizer == "prodigy":
            return rate * float(settings["d"])
        if self.config.optimizer == "schedule_free":
            return float(settings["scheduled_lr"])
        return rate

    def _schedule(self, step: int) -> float:
        config = self.config
        warmup = 0 if config.optimizer == "schedule_free" else config.warmup_steps  # the optimiser has its own warm-up
        return lr_schedule(step, config.steps, warmup, config.schedule)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the moving average, if there is one, into the model for the block, to measure or save it."""
        schedule_free = self.config.optimizer == "schedule_free"
        if not self.average and not schedule_free:
            yield
            return
        # Copied, not computed back: validation must not change a bit of the trained tensors.
        current = [tensor.detach().clone() for tensor in self.tensors]
        if schedule_free:
            self.optimizer.eval()  # type: ignore[attr-defined]  # the library's switch to its average
        else:
            self.assign(self.average)
        try:
            yield
        finally:
            if schedule_free:
                self.optimizer.train()  # type: ignore[attr-defined]
            self.assign(current)

    def all_finite(self) -> bool:
        return all(bool(tensor.isfinite().all()) for tensor in (*self.tensors, *self.average))

    def state(self) -> dict[str, Tensor]:
        """Return the tensors for a checkpoint, by name."""
        named: dict[str, Tensor] = {f"adapter.{name}": tensor for name, tensor in self.parameters.items()}
        named |= {f"average.{name}": tensor for name, tensor in zip(self.parameters, self.average, strict=False)}
        if self.scaler.is_enabled():
            scale = self.scaler.state_dict()
            named["loss_scale"] = torch.tensor([scale["scale"], scale["_growth_tracker"]], dtype=torch.float64)
        return named | optimizer_tensors(self.optimizer)

    def state_values(self) -> list[dict[str, Any]]:
        """Return the settings of the optimiser for a checkpoint, as JSON values."""
        return optimizer_groups(self.optimizer)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore the state from a checkpoint's tensors and its value "optimizer"."""
        self.assign([checkpoint.tensors[f"adapter.{name}"] for name in self.parameters])
        for name, average in zip(self.parameters, self.average, strict=False):
            average.copy_(checkpoint.tensors[f"average.{name}"])
        if self.scaler.is_enabled():
            scale, tracker = checkpoint.tensors["loss_scale"].tolist()
            settings = self.scaler.state_dict()
            self.scaler.load_state_dict({**settings, "scale": scale, "_growth_tracker": int(tracker)})
        load_optimizer_tensors(self.optimizer, checkpoint.tensors, checkpoint.values["optimizer"])

    @torch.no_grad()
    def assign(self, values: Sequence[Tensor]) -> None:
        """Copy values into the trained tensors, in the order of `tensors`."""
        for tensor, value in zip(self.tensors, values, strict=True):
            tensor.copy_(value)
