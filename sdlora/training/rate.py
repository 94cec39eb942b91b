"""The learning rate over a run."""

from __future__ import annotations

import math


def rate_factor(step: int, steps: int, warmup_steps: int) -> float:
    """Share of the peak rate at `step` in [0, steps): linear warm-up to 1, then half a cosine to nearly 0.

    Source: Loshchilov & Hutter 2017, arXiv:1608.03983 (cosine without restarts).
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))
