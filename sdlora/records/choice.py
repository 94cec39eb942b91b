"""Choice of a training run: the step whose adapter was kept, with the evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from sdlora.core.config_base import FrozenConfig
from sdlora.records.metrics import Estimate

CHOICE_FILE = "choice.json"


class Choice(FrozenConfig):
    """Choice of the adapter by its step, with differences paired by held-out image; below 0 the kept adapter is better.

    Differences are in the loss, or in the KID of drawn images if `by` is "kid". Losses and differences are None without
    held-out images; an interval needs two.
    """

    rule: Literal["best", "last"]
    step: int
    trained_steps: int
    stopped_early: bool
    by: Literal["loss", "kid"] = "loss"
    validation_loss: float | None = None
    validation_kid: Estimate | None = Field(None, description="of the drawn images, if any were drawn")
    against_start: Estimate | None = Field(None, description="against the base model without adapter")
    against_last: Estimate | None = Field(None, description="against the last step; None if the last step was kept")
    runner_up_step: int | None = None
    against_runner_up: Estimate | None = None

    def in_words(self) -> str:
        """Describe the choice in one or two sentences."""
        stop = (
            f"Training stopped at step {self.trained_steps}: the validation no longer improved. "
            if self.stopped_early
            else ""
        )
        if self.validation_loss is None:
            return f"{stop}The adapter of the last step, {self.step}, was kept; there were no held-out images."
        measurements = [f"validation loss {self.validation_loss:.4g}"]
        if self.validation_kid is not None:
            kid = self.validation_kid
            measurements.append(f"KID of drawn captions {kid.value:.3g} [{kid.low:.3g}, {kid.high:.3g}]")
        if self.by == "loss":
            measurements.reverse()  # the criterion comes last, before its differences
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
    """Read the training run's `choice.json`; None if it is missing or damaged, because it only explains."""
    try:
        return Choice.model_validate_json((folder / CHOICE_FILE).read_bytes())
    except (OSError, ValueError):
        return None
