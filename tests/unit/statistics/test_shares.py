"""Intervals of shares equal the published formulas and hold where a share is rare."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor

from sdlora.core.errors import EvaluationError
from sdlora.statistics.shares import share, share_difference


def _hits(ones: int, images: int) -> Tensor:
    return torch.cat([torch.ones(ones), torch.zeros(images - ones)])


@pytest.mark.parametrize(("ones", "images"), [(0, 104), (1, 104), (7, 20), (104, 104), (0, 1), (1, 1)])
def test_a_share_has_wilsons_interval_as_scipy_computes_it(ones: int, images: int) -> None:
    measured = share(_hits(ones, images))
    wilson = binomtest(ones, images).proportion_ci(method="wilson")
    assert (measured.value, measured.low, measured.high) == pytest.approx(
        (ones / images, wilson.low, wilson.high), abs=1e-12
    )
    assert measured.low <= measured.value <= measured.high


def test_a_share_that_was_never_seen_may_be_there() -> None:
    assert share(_hits(0, 104)).high == pytest.approx(0.03562, abs=1e-5)
    assert share_difference(_hits(0, 104), _hits(0, 104)).high == pytest.approx(0.03562, abs=1e-5)


def test_a_difference_joins_two_wilson_intervals_as_newcombe_does() -> None:
    # 44 pairs: both 12, only the first 9, only the second 2, neither 21.
    first = torch.cat([torch.ones(21), torch.zeros(23)])
    second = torch.cat([torch.ones(12), torch.zeros(9), torch.ones(2), torch.zeros(21)])
    difference = share_difference(first, second)
    ours, theirs = (binomtest(ones, 44).proportion_ci(method="wilson") for ones in (21, 14))
    phi = (12 * 21 - 9 * 2 - 44 / 2) / (21 * 23 * 14 * 30) ** 0.5
    down, up = 21 / 44 - ours.low, theirs.high - 14 / 44
    assert difference.value == pytest.approx(7 / 44)
    assert difference.low == pytest.approx(7 / 44 - (down**2 - 2 * phi * down * up + up**2) ** 0.5)


@pytest.mark.parametrize(("rate", "shared"), [(0.01, 0.0), (0.05, 0.5), (0.5, 0.8)])
def test_intervals_hold_the_true_difference_of_paired_shares(rate: float, shared: float) -> None:
    generator = torch.Generator().manual_seed(3)
    trials, images, held = 400, 100, 0
    for _ in range(trials):
        common = torch.rand(images, generator=generator)
        own, rival = (torch.rand(images, generator=generator) for _ in range(2))
        same = torch.rand(images, generator=generator) < shared
        first, second = torch.where(same, common, own) < rate, torch.where(same, common, rival) < rate
        difference = share_difference(first.double(), second.double())
        held += difference.low <= 0 <= difference.high
    assert held / trials >= 0.93


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(EvaluationError, match="at least 1 image"):
        share(torch.zeros(0))
