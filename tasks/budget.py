"""Budget that training methods share: optimiser steps, or their time on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from sdlora.config import PipelineConfig
from sdlora.records.comparison import title

if TYPE_CHECKING:
    from sdlora.evaluation.contest import Contestant

Equal = Literal["steps", "seconds"]
_TRIAL_STEPS, _TRIAL_REPORTS = 40, 8


def with_training(config: PipelineConfig, **settings: Any) -> PipelineConfig:
    """Return the configuration with changed training settings; empty settings are filled later."""
    return config.model_copy(update={"training": config.training.model_copy(update=settings)})


def trial_config(config: PipelineConfig) -> PipelineConfig:
    """Return the configuration of a short trial, which measures only the speed of a method."""
    trial = with_training(
        config, steps=_TRIAL_STEPS, log_every_steps=_TRIAL_STEPS // _TRIAL_REPORTS, keep="last", sample_every_steps=None
    )
    return trial.model_copy(update={"name": f"{config.name}-trial"})


def steps_of_equal_seconds(steps: Mapping[str, int], trial: Callable[[str], Contestant]) -> dict[str, int]:
    """Compute for every method the steps that take as long as the steps of the first method.

    The methods train for a few steps, one after the other. The results of these trials are kept, so a continued
    comparison has the same numbers. Only steps are timed: loading and measuring take the same time for every method.

    Args:
        steps: by method, the steps of its settings; the first method sets the time.
        trial: trains one method with the settings of `trial_config`.
    """
    rates = {method: _images_per_second(trial(method)) for method in steps}
    reference = next(iter(steps))
    return {method: max(1, round(steps[reference] * rate / rates[reference])) for method, rate in rates.items()}


def budget_in_words(steps: Mapping[str, int], batch_size: int) -> str:
    """Describe the budget for readers; `steps` are by method, and the first method sets the time."""
    reference, *other_methods = steps
    if len(set(steps.values())) == 1:
        budget = f"{steps[reference]} optimiser steps for each method, without a limit of time"
    else:
        counts = ", ".join(f"{title(name)} {steps[name]}" for name in other_methods)
        budget = (
            f"the time of {steps[reference]} steps of {title(reference)}, in which the other methods take: {counts}"
        )
    return f"The same images, captions, batches of {batch_size}, noise and seed; the budget is {budget}."


def _images_per_second(contestant: Contestant) -> float:
    folder: Path = (contestant.adapter or contestant.model).folder.parent
    points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rates = [float(point["images_per_second"]) for point in points if "images_per_second" in point]
    return median(rates[1:] or rates)  # the first rate includes one-time work
