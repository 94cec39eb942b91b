"""Confidence intervals of shares, which hold where a share is rare or never seen.

Resampling cannot see what a sample holds none of: 0 of 104 resamples to [0, 0]. Wilson's interval is [0, 0.036] there.
Sources: Wilson 1927, JASA 22:209-212; Newcombe 1998, Statistics in Medicine 17:2635-2650, method 10 (paired shares).
"""

from __future__ import annotations

from math import sqrt

from torch import Tensor

from sdlora.core.errors import EvaluationError
from sdlora.records.metrics import Estimate

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution: 95 % intervals


def share(hits: Tensor) -> Estimate:
    """Share of ones among (N,) zeros and ones, with Wilson's interval.

    Raises:
        EvaluationError: no images.
    """
    images = len(hits)
    if images == 0:
        raise EvaluationError("A share needs at least 1 image, got 0.")
    value = hits.double().mean().item()
    centre = (value + _Z**2 / (2 * images)) / (1 + _Z**2 / images)
    half = _Z / (1 + _Z**2 / images) * sqrt(value * (1 - value) / images + _Z**2 / (4 * images**2))
    return Estimate(value=value, low=min(value, max(centre - half, 0.0)), high=max(value, min(centre + half, 1.0)))


def share_difference(hits: Tensor, rival_hits: Tensor) -> Estimate:
    """Share of `hits` minus share of `rival_hits`, paired: (N,) zeros and ones of the same images, twice.

    Raises:
        EvaluationError: no images.
    """
    ours, theirs = share(hits), share(rival_hits)
    correlation = _correlation(hits.bool(), rival_hits.bool())
    value = ours.value - theirs.value
    return Estimate(
        value=value,
        low=value - _joined(ours.value - ours.low, theirs.high - theirs.value, correlation),
        high=value + _joined(ours.high - ours.value, theirs.value - theirs.low, correlation),
    )


def _correlation(hits: Tensor, rival_hits: Tensor) -> float:
    """Newcombe's phi of a 2 x 2 table; a positive association is first reduced for continuity."""
    both, neither = (hits & rival_hits).sum().item(), (~hits & ~rival_hits).sum().item()
    first, second = (hits & ~rival_hits).sum().item(), (~hits & rival_hits).sum().item()
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    if margins == 0:
        return 0.0
    association = both * neither - first * second
    if association > 0:
        association = max(association - len(hits) / 2, 0.0)
    return float(association / sqrt(margins))


def _joined(first: float, second: float, correlation: float) -> float:
    return sqrt(max(first**2 - 2 * correlation * first * second + second**2, 0.0))
