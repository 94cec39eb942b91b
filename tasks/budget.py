"""The budget that ways to train share: optimiser steps, or their time on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from sdlora.config import PipelineConfig

if TYPE_CHECKING:
    from sdlora.evaluation.comparison import Trained

Equal = Literal["steps", "seconds"]
_TRIAL_STEPS, _TRIAL_REPORTS = 40, 8


def with_training(config: PipelineConfig, **settings: Any) -> PipelineConfig:
    """Return the configuration with other training settings; empty settings are filled later."""
    return config.model_copy(update={"training": config.training.model_copy(update=settings)})


def trial_of(config: PipelineConfig) -> PipelineConfig:
    """Return the configuration of a short trial, which only measures the speed of a way to train."""
    trial = with_training(
        config, steps=_TRIAL_STEPS, log_every_steps=_TRIAL_STEPS // _TRIAL_REPORTS, keep="last", sample_every_steps=None
    )
    return trial.model_copy(update={"name": f"{config.name}-trial"})


def steps_of_equal_seconds(steps: Mapping[str, int], trial: Callable[[str], Trained]) -> dict[str, int]:
    """Compute the steps of every way that take as long as those of the first way.

    Every way is trained for a few steps first, one after the other. The trials' results are kept, so a continued
    comparison has the same numbers. Only steps are timed: loading and measuring take the same time for every way.

    Args:
        steps: by way, the steps of its settings; the first way sets the time.
        trial: trains one way with the settings of `trial_of`.
    """
    rates = {way: _images_per_second(trial(way)) for way in steps}
    reference = next(iter(steps))
    return {way: max(1, round(steps[reference] * rate / rates[reference])) for way, rate in rates.items()}


def _images_per_second(trained: Trained) -> float:
    folder: Path = (trained.adapter or trained.model).folder.parent
    points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rates = [float(point["images_per_second"]) for point in points if "images_per_second" in point]
    return median(rates[1:] or rates)  # the first rate includes one-time work
