"""Variety of the pixel values: an image of one colour, or of little else."""

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


BLANK = Check("blank", 1, contrast, ("min_contrast",), _rejects_blank)


def information(picture: Picture) -> float | None:
    """A tenth of the entropy of all colour values together, in bits, at most 1.

    One plain colour has 0.158 (a third of the values each in three bins), a hairline on white paper 0.162, the demo's
    icons have 0.26 to 0.48, photographs mostly 0.7 to 0.95.

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


LOW_INFORMATION = Check("low_information", 2, information, ("low_information_threshold",), _rejects_low_information)


def histograms(stack: Stack) -> DoubleArray:
    """(N, 3, 256) how many pixels of each picture have each value of red, green and blue."""
    # By way of the bytes: numpy takes twice as long to look at each number of a list.
    counts = b"".join([pack(f"{3 * 256}q", *image.histogram()) for image in stack.images])
    return np.frombuffer(counts, np.int64).reshape(-1, 3, 256).astype(np.float64)


def deviations(histograms: DoubleArray) -> DoubleArray:
    """(..., 256) counts of each value -> (...) standard deviations of the values."""
    totals = histograms.sum(axis=-1)
    means = histograms @ _VALUES / totals
    spread: DoubleArray = np.sqrt(np.maximum(histograms @ _SQUARES / totals - means**2, 0.0))
    return spread


def entropies(counts: DoubleArray) -> DoubleArray:
    """(N, M) how often each value occurs -> (N,) bits per value."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    bits: DoubleArray = -(shares * np.log2(np.where(shares > 0, shares, 1.0))).sum(axis=1)
    return bits
