"""Learning-rate schedules: warm-up, then cosine, linear or constant."""

from __future__ import annotations

import math

from sdlora.training.config import ScheduleName


def lr_schedule(step: int, steps: int, warmup_steps: int, schedule: ScheduleName = "cosine") -> float:
    """Compute the share of the peak rate at `step` in [0, steps): linear warm-up to 1, then `schedule`.

    "cosine" and "linear" fall to nearly 0. Source of the cosine: Loshchilov & Hutter 2017, arXiv:1608.03983.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    match schedule:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            return 1 - progress
        case "constant":
            return 1.0
