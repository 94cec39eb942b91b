"""The part of a run that changes: the trained tensors, the optimiser and the moving average."""

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
        parameters: by name; a name occurs in one group only.
        learning_rate: the peak of the schedule.
        rate_name: under which its rate is reported.
    """

    parameters: Mapping[str, nn.Parameter]
    learning_rate: float
    rate_name: str = "learning_rate"


class Learner:
    """Updates the parameters of some groups.

    Raises:
        TrainingError: nothing is trainable.
        ConfigError: the optimiser's library is not installed.
    """

    def __init__(self, groups: Sequence[TrainedGroup], config: ResolvedTraining) -> None:
        self.config = config
        self.groups = groups
        self.parameters = {name: parameter for group in groups for name, parameter in group.parameters.items()}
        # A list, made once: an iterator consumed by the optimiser would leave nothing to clip, silently.
        self.tensors: list[Tensor] = list(self.parameters.values())
        if not self.tensors:
            raise TrainingError("training: the model has no trainable adapter. Attach one before training.")
        self.optimizer = make_optimizer(
            [{"params": list(group.parameters.values()), "lr": group.learning_rate} for group in groups], config
        )
        # With fp16 the loss is multiplied by as much as its gradients bear, else small ones would vanish; in other
        # arithmetic the scaler does nothing.
        self.scaler = torch.amp.GradScaler(self.tensors[0].device.type, enabled=config.precision == "fp16")
        self.average = [tensor.detach().clone() for tensor in self.tensors] if config.ema_decay else []

    def scaled(self, loss: Tensor) -> Tensor:
        """What to differentiate in place of the loss."""
        scaled: Tensor = self.scaler.scale(loss)
        return scaled

    @property
    def loss_scale(self) -> float | None:
        """By how much the loss is multiplied; None if it is not."""
        return float(self.scaler.get_scale()) if self.scaler.is_enabled() else None

    def update(self, step: int) -> Tensor:
        """Clip the gradients, take one optimiser step, update the average; returns the norm before clipping.

        Where a scaled loss overflowed, nothing moves, the scale is halved, and the norm counts as 0.
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
            # Rising to its limit, so that the average does not drag the zero start along in a short run.
            decay = min(config.ema_decay, (step + 1) / (step + 10))
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.tensors, 1 - decay)
        return norm.detach()

    def reported(self, step: int) -> dict[str, float]:
        """Each group's rate at `step`, with Prodigy the one that it has found; and the loss scale, if there is one."""
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
        warmup = 0 if config.optimizer == "schedule_free" else config.warmup_steps  # it does its own
        return lr_schedule(step, config.steps, warmup, config.schedule)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """While active, the model holds the average, if one is kept: what is measured and saved."""
        schedule_free = self.config.optimizer == "schedule_free"
        if not self.average and not schedule_free:
            yield
            return
        # Copied, not computed back: measuring must not change a bit of what is learnt.
        current = [tensor.detach().clone() for tensor in self.tensors]
        if schedule_free:
            self.optimizer.eval()  # type: ignore[attr-defined]  # its library's own way to the average
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
        """The tensors that a checkpoint must hold, by name."""
        named: dict[str, Tensor] = {f"adapter.{name}": tensor for name, tensor in self.parameters.items()}
        named |= {f"average.{name}": tensor for name, tensor in zip(self.parameters, self.average, strict=False)}
        if self.scaler.is_enabled():
            scale = self.scaler.state_dict()
            named["loss_scale"] = torch.tensor([scale["scale"], scale["_growth_tracker"]], dtype=torch.float64)
        return named | optimizer_tensors(self.optimizer)

    def state_values(self) -> list[dict[str, Any]]:
        """What a checkpoint must hold beside the tensors, as JSON values."""
        return optimizer_groups(self.optimizer)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint's tensors and its value "optimizer"."""
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
        """Put values into the trained tensors, in their order."""
        for tensor, value in zip(self.tensors, values, strict=True):
            tensor.copy_(value)
