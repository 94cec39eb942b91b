"""Paired timing of two procedures in turn, A B A B, so that other load of the machine disturbs both alike."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Pairs:
    """Seconds per step of neighbouring blocks; the ratio is taken pair by pair."""

    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)

    def add(self, ours: float, bare: float) -> None:
        self.ours.append(ours)
        self.bare.append(bare)

    @property
    def ratios(self) -> list[float]:
        return [ours / bare for ours, bare in zip(self.ours, self.bare, strict=True)]

    def summary(self, names: tuple[str, str] = ("sdlora", "bare step")) -> str:
        return (
            f"{names[0]} {1000 * statistics.median(self.ours):.1f} ms, "
            f"{names[1]} {1000 * statistics.median(self.bare):.1f} ms a step (medians of {len(self.ours)} blocks); "
            f"ratio {median_with_spread(self.ratios)}, "
            f"of the sums {sum(self.ours) / sum(self.bare):.3f}"
        )


FEWEST_FOR_AN_INTERVAL = 6
"""With fewer, the median lies outside even the range of the values in more than 5 % of all samples (2 / 2**5)."""


def median_with_spread(values: list[float]) -> str:
    """Write the median with its 95 % interval; with the range, named as such, where values are too few for one."""
    median = statistics.median(values)
    if len(values) < FEWEST_FOR_AN_INTERVAL:
        return f"{median:.3f} (range of {len(values)}: {min(values):.3f} to {max(values):.3f})"
    low, high = interval_of_median(values)
    return f"{median:.3f} [{low:.3f}, {high:.3f}]"


def interval_of_median(values: list[float], resamples: int = 2000) -> tuple[float, float]:
    """95 % interval of the median, by resampling the pairs with a fixed seed."""
    drawn = np.random.default_rng(0).choice(np.asarray(values), size=(resamples, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)
