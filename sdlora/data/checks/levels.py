"""Contrast and entropy checks: reject blank images and images with little information."""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING

import numpy as np

from sdlora.data.arrays import DoubleArray
from sdlora.data.checks.base import Check, Picture
from sdlora.data.decoding.stack import Stack

if TYPE_CHECKING:
    from sdlora.data.config import DataConfig


_VALUES = np.arange(256.0)
_SQUARES = _VALUES**2


def contrast(picture: Picture) -> float | None:
    """Standard deviation of the most varied colour channel, in grey levels of 255."""
    return picture.of_pixels(_contrasts)


def _contrasts(stack: Stack) -> DoubleArray:
    contrasts: DoubleArray = deviations(stack.computed(histograms)).max(axis=1)
    return contrasts


def _rejects_blank(score: float, config: DataConfig) -> str | None:
    if score >= config.min_contrast:
        return None
    return f"blank: brightness varies by {score:.1f} of 255 levels, less than min_contrast = {config.min_contrast:g}"


BLANK = Check("blank", 1, contrast, ("min_contrast",), _rejects_blank, depends_on_background=True)


def information(picture: Picture) -> float | None:
    """Entropy of all colour values in bits, divided by 10, at most 1.

    One plain colour scores 0.158 (a third of the values in each of three bins), a hairline on white paper 0.162. The
    demo's icons score 0.26 to 0.48, and photographs mostly 0.7 to 0.95.

    Source: cleanvision 0.3.7, low_information_score, of the image as RGB.
    """
    return picture.of_pixels(_information)


def _information(stack: Stack) -> DoubleArray:
    counts = stack.computed(histograms)
    information: DoubleArray = np.minimum(entropies(counts.reshape(len(counts), -1)) / 10, 1.0)
    return information


def _rejects_low_information(score: float, config: DataConfig) -> str | None:
    if score >= config.low_information_threshold:
        return None
    return (
        f"low information: entropy {score:.3f} of 1, less than "
        f"low_information_threshold = {config.low_information_threshold:g}"
    )


LOW_INFORMATION = Check(
    "low_information",
    2,
    information,
    ("low_information_threshold",),
    _rejects_low_information,
    depends_on_background=True,
)


def histograms(stack: Stack) -> DoubleArray:
    """Return pixel counts (N, 3, 256) of each value of red, green and blue, per picture."""
    # Through bytes, because numpy takes twice as long to convert a list.
    counts = b"".join([pack(f"{3 * 256}q", *image.histogram()) for image in stack.images])
    return np.frombuffer(counts, np.int64).reshape(-1, 3, 256).astype(np.float64)


def deviations(histograms: DoubleArray) -> DoubleArray:
    """Return standard deviations (...) of values from their counts (..., 256)."""
    totals = histograms.sum(axis=-1)
    means = histograms @ _VALUES / totals
    spread: DoubleArray = np.sqrt(np.maximum(histograms @ _SQUARES / totals - means**2, 0.0))
    return spread


def entropies(counts: DoubleArray) -> DoubleArray:
    """Return entropies (N,) in bits per value from the counts of each value, (N, M)."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    bits: DoubleArray = -(shares * np.log2(np.where(shares > 0, shares, 1.0))).sum(axis=1)
    return bits
