"""The learning rate over a run."""

from __future__ import annotations

import math

from sdlora.training.config import ScheduleName


def lr_schedule(step: int, steps: int, warmup_steps: int, schedule: ScheduleName = "cosine") -> float:
    """Share of the peak rate at `step` in [0, steps): linear warm-up to 1, then as `schedule` says.

    "cosine" and "linear" fall to nearly 0; the cosine is that of Loshchilov & Hutter 2017, arXiv:1608.03983.
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
