"""The choice of a training run: the step whose adapter was kept, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from sdlora.core.config_base import FrozenConfig
from sdlora.records.metrics import Estimate

CHOICE_FILE = "choice.json"


class Choice(FrozenConfig):
    """Which step's adapter a training run kept. Differences are paired by held-out image; below 0 the kept is better.

    They are of the loss, or of the drawn images' KID if `by` is that. Losses and differences are None where nothing was
    measured, intervals need two held-out images.
    """

    rule: Literal["best", "last"]
    step: int
    trained_steps: int
    stopped_early: bool
    by: Literal["loss", "kid"] = "loss"
    validation_loss: float | None = None
    validation_kid: Estimate | None = Field(None, description="of the images that it drew, if any were drawn")
    against_start: Estimate | None = Field(None, description="against the base model without adapter")
    against_last: Estimate | None = Field(None, description="against the last step; None if that is the one kept")
    runner_up_step: int | None = None
    against_runner_up: Estimate | None = None

    def in_words(self) -> str:
        """One or two sentences for people."""
        stop = f"Training stopped at step {self.trained_steps}: it had ceased to help. " if self.stopped_early else ""
        if self.validation_loss is None:
            return f"{stop}The adapter of the last step, {self.step}, was kept; there was nothing to measure it on."
        measurements = [f"validation loss {self.validation_loss:.4g}"]
        if self.validation_kid is not None:
            kid = self.validation_kid
            measurements.append(f"KID of drawn captions {kid.value:.3g} [{kid.low:.3g}, {kid.high:.3g}]")
        if self.by == "loss":
            measurements.reverse()  # what was chosen by is said last, before its differences
        rule = f"{self.rule} by KID" if self.by == "kid" and self.rule == "best" else self.rule
        words = f"{stop}The adapter of step {self.step} of {self.trained_steps} was kept ({rule}): "
        words += ", ".join(measurements)
        for rival, difference in (
            ("the base model", self.against_start),
            ("the last step", self.against_last),
            (f"the runner-up, step {self.runner_up_step}", self.against_runner_up),
        ):
            if difference is not None:
                interval = f"[{difference.low:+.2g}, {difference.high:+.2g}]"
                words += f"; against {rival} {difference.value:+.2g} {interval}"
        return words + "."


def load_choice(folder: Path) -> Choice | None:
    """Read the training run's `choice.json`; None if there is none or it is damaged: it only explains."""
    try:
        return Choice.model_validate_json((folder / CHOICE_FILE).read_bytes())
    except (OSError, ValueError):
        return None
