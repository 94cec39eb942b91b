"""Scores of a duel as text, equal in the log, on the run's page and on the version's page."""

from __future__ import annotations

from collections.abc import Sequence

from sdlora.records.duel import ContestantName, Duel
from sdlora.records.metrics import METRICS, Metric

LEADING = ("kid", "fid", "denoising_psnr", "subject_top10")
DISPLAY_ORDER: tuple[ContestantName, ...] = ("candidate", "champion", "base")


def contestants(duel: Duel) -> list[ContestantName]:
    """List the contestants of a duel, the candidate first: readers look for it."""
    return [name for name in DISPLAY_ORDER if name in duel.scores]


def score_rows(duel: Duel, names: Sequence[str] = tuple(METRICS)) -> list[list[str]]:
    """Return a row per metric: label, each contestant's value with its interval, and the better direction."""
    return [
        [
            _label(METRICS[name]),
            *(cell(duel, contestant, name) for contestant in contestants(duel)),
            METRICS[name].better,
        ]
        for name in names
    ]


def cell(duel: Duel, contestant: ContestantName, name: str) -> str:
    """Format a value with its 95 % interval: `0.5463 [0.4120, 0.6801]`."""
    return METRICS[name].format(duel.scores[contestant].metrics.get(name), unit=False)


def score_lines(duel: Duel) -> list[str]:
    """Format a line of the leading scores for each contestant."""
    return [
        f"{contestant}: " + ", ".join(f"{METRICS[name].label} {cell(duel, contestant, name)}" for name in LEADING)
        for contestant in contestants(duel)
    ]


def _label(metric: Metric) -> str:
    return f"{metric.label}, {metric.unit}" if metric.unit else metric.label
