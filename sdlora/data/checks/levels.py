"""Statistics of pixel values from how often each occurs: 256 numbers instead of a million."""

from __future__ import annotations

from struct import pack

import numpy as np
import numpy.typing as npt

from sdlora.data.decoding.stack import Stack

FloatArray = npt.NDArray[np.float64]

_VALUES = np.arange(256.0)
_SQUARES = _VALUES**2


def histograms(stack: Stack) -> FloatArray:
    """(N, 3, 256) how many pixels of each picture have each value of red, green and blue."""
    # By way of the bytes: numpy takes twice as long to look at each number of a list.
    counts = b"".join([pack(f"{3 * 256}q", *image.histogram()) for image in stack.images])
    return np.frombuffer(counts, np.int64).reshape(-1, 3, 256).astype(np.float64)


def deviations(histograms: FloatArray) -> FloatArray:
    """(..., 256) counts of each value -> (...) standard deviations of the values."""
    totals = histograms.sum(axis=-1)
    means = histograms @ _VALUES / totals
    result: FloatArray = np.sqrt(np.maximum(histograms @ _SQUARES / totals - means**2, 0.0))
    return result


def entropies(counts: FloatArray) -> FloatArray:
    """(N, M) how often each value occurs -> (N,) bits per value."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    result: FloatArray = -(shares * np.log2(np.where(shares > 0, shares, 1.0))).sum(axis=1)
    return result
