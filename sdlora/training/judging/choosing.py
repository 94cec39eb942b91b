"""Choice of the adapter by validation: the best step and the runner-up are kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from sdlora.core.errors import StorageError, WeightsError
from sdlora.core.files import replace_file
from sdlora.records.choice import Choice
from sdlora.records.metrics import Estimate
from sdlora.training.config import ResolvedTraining
from sdlora.training.judging.validation_result import ValidationResult

FOLDER = "kept"


class Chooser:
    """Chooser of the adapter to keep, and of the step to stop at.

    The lowest mean error wins, or with `keep_by` kid the lowest KID. A result counts towards early stopping only if it
    is clearly worse than the best: the 95 % interval of the difference, paired by image, must exclude zero. On few
    images the mean itself is too noisy.
    """

    def __init__(self, folder: Path, config: ResolvedTraining) -> None:
        self.folder = folder / FOLDER
        self.config = config
        self.start: ValidationResult | None = None
        self.best: ValidationResult | None = None
        self.runner_up: ValidationResult | None = None
        self.last: ValidationResult | None = None
        self.worse_in_a_row = 0
        self._steps_of_checkpoints: list[set[int]] = []

    def consider(self, result: ValidationResult, weights: Mapping[str, Tensor]) -> None:
        """Record a validation result; write the weights if they are the best or second best so far.

        Raises:
            StorageError: the disk is full or not writable.
        """
        if result.step == 0:
            self.start = result  # the bare base model: a reference, never kept
            return
        self.last = result
        if self.best is None or self._score(result) < self._score(self.best):
            self.runner_up, self.best = self.best, self._keep(result, weights)
            self.worse_in_a_row = 0
            return
        difference = self._difference(result, self.best)
        clearly_worse = difference is not None and difference.low > 0
        self.worse_in_a_row = self.worse_in_a_row + 1 if clearly_worse else 0
        if self.runner_up is None or self._score(result) < self._score(self.runner_up):
            self.runner_up = self._keep(result, weights)

    @property
    def should_stop(self) -> bool:
        patience = self.config.early_stop_patience
        return patience is not None and self.worse_in_a_row >= patience

    def choice(self, trained_steps: int) -> Choice:
        """Describe the kept adapter with the evidence."""
        kept = self.last if self.config.keep == "last" else self.best
        stopped = trained_steps < self.config.steps
        if kept is None:
            return Choice(rule="last", step=trained_steps, trained_steps=trained_steps, stopped_early=stopped)
        runner_up = self.runner_up if self.config.keep == "best" else None
        return Choice(
            rule=self.config.keep,
            step=kept.step,
            trained_steps=trained_steps,
            stopped_early=stopped,
            by=self.config.keep_by,
            validation_loss=kept.loss,
            validation_kid=kept.kid.estimate if kept.kid else None,
            against_start=self._difference(kept, self.start),
            against_last=None if kept is self.last else self._difference(kept, self.last),
            runner_up_step=runner_up.step if runner_up else None,
            against_runner_up=self._difference(kept, runner_up),
        )

    def weights_of(self, result: ValidationResult) -> dict[str, Tensor]:
        """Load the kept weights of a validation result, by parameter name.

        Raises:
            WeightsError: the file is missing or damaged.
        """
        path = self._path(result.step)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise WeightsError(f"The kept adapter {path} cannot be read: {error}. Train again.") from error
        if hashlib.sha256(content).hexdigest() != result.sha256:
            raise WeightsError(f"The kept adapter {path} is damaged: its SHA-256 is not the recorded one. Train again.")
        return load(content)

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint as JSON values; the weights stay in their files."""
        named = {"start": self.start, "best": self.best, "runner_up": self.runner_up, "last": self.last}
        results = {name: result.to_json() for name, result in named.items() if result}
        return {"measurements": results, "worse_in_a_row": self.worse_in_a_row}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a checkpoint's state."""
        for name, value in state["measurements"].items():
            setattr(self, name, ValidationResult.from_json(value))
        if self.last and self.best and self.last.step == self.best.step:
            self.last = self.best
        self.worse_in_a_row = state["worse_in_a_row"]
        self._steps_of_checkpoints = [self._kept_steps()]

    def checkpoint_written(self) -> None:
        """Delete files that this checkpoint and the previous one do not name; a run may continue from either."""
        self._steps_of_checkpoints = [*self._steps_of_checkpoints[-1:], self._kept_steps()]
        needed = {self._path(step).name for steps in self._steps_of_checkpoints for step in steps}
        for path in self.folder.glob("step-*.safetensors"):
            if path.name not in needed:
                path.unlink(missing_ok=True)

    def _keep(self, result: ValidationResult, weights: Mapping[str, Tensor]) -> ValidationResult:
        content = save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"Cannot write to {self.folder}: {error}. Free some space and run again.") from error
        replace_file(self._path(result.step), content)
        kept = replace(result, sha256=hashlib.sha256(content).hexdigest())
        if self.last is result:
            self.last = kept
        return kept

    def _kept_steps(self) -> set[int]:
        return {result.step for result in (self.best, self.runner_up) if result}

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.safetensors"

    def _score(self, result: ValidationResult) -> float:
        return result.score(self.config.keep_by)

    def _difference(self, result: ValidationResult, other: ValidationResult | None) -> Estimate | None:
        return result.less(other, self.config.keep_by, self.config.seed)
