"""What is held equal between ways to train: steps, or the time that they take on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Literal

from sdlora.config import PipelineConfig
from sdlora.training import TrainingConfig

if TYPE_CHECKING:
    from sdlora.evaluation.comparing import Trained

Equal = Literal["steps", "seconds"]
TRIAL_STEPS, _REPORTS = 40, 8


def with_steps(config: PipelineConfig, steps: int, **others: object) -> PipelineConfig:
    """The configuration with so many steps, and all that follows from them, such as the warm-up, derived anew."""
    given = {**config.training.model_dump(exclude_unset=True), "steps": steps, **others}
    return config.model_copy(update={"training": TrainingConfig.model_validate(given)})


def steps_of_equal_seconds(
    ways: Sequence[str], config: PipelineConfig, train: Callable[[str, PipelineConfig], Trained]
) -> dict[str, int]:
    """By way, how many steps take as long as training.steps of the first way.

    Every way is trained for a few steps first, one after the other; these trials are kept, so a continued comparison
    has the same numbers. Only steps are timed: loading and measuring are the same for all.

    Args:
        ways: the ways to train.
        config: the settings that all share.
        train: trains one way with a configuration.
    """
    trial = with_steps(
        config, TRIAL_STEPS, log_every_steps=TRIAL_STEPS // _REPORTS, keep="last", sample_every_steps=None
    ).model_copy(update={"name": f"{config.name}-trial"})
    rates = {way: _images_per_second(train(way, trial)) for way in ways}
    first = rates[ways[0]]
    return {way: max(1, round(config.training.steps * rate / first)) for way, rate in rates.items()}


def _images_per_second(trained: Trained) -> float:
    folder: Path = (trained.adapter or trained.model).folder.parent
    points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rates = [float(point["images_per_second"]) for point in points if "images_per_second" in point]
    return median(rates[1:] or rates)  # the first ones also pay for what is made once
