"""Statistics of pixel values from how often each occurs: 256 numbers instead of a million."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_VALUES = np.arange(256.0)
_SQUARES = _VALUES**2


def deviations(histograms: FloatArray) -> FloatArray:
    """(..., 256) counts of each value -> (...) standard deviations of the values."""
    totals = histograms.sum(axis=-1)
    means = histograms @ _VALUES / totals
    result: FloatArray = np.sqrt(np.maximum(histograms @ _SQUARES / totals - means**2, 0.0))
    return result


def entropy(counts: FloatArray) -> float:
    """Bits per value, over all counts together."""
    counts = counts[counts > 0]
    shares = counts / counts.sum()
    return -float(shares @ np.log2(shares))
