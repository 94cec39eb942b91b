"""Matrices that shrink (or enlarge) an axis of pixels to a few cells."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from sdlora.data.arrays import FloatArray

_LANCZOS_LOBES = 3
_MULTIPLICATIONS = 1 << 18  # in one product of matrices; from there on BLAS starts threads
_FINEST = 0.5  # pixels: a narrower bell would show single pixels where an axis is enlarged


def softened(side: int, spans: FloatArray, cells: int, softness: float) -> FloatArray:
    """(N, cells, side) weights that read each span by Gaussian bells.

    Args:
        side: pixels of the axis.
        spans: (2, N) low and high ends, in pixels.
        softness: standard deviation of a bell, in cells.
    """
    low, high = spans
    size = (high - low) / cells  # of a cell, in pixels
    centres = low[:, None] + size[:, None] * (np.arange(cells, dtype=np.float32) + np.float32(0.5))  # (N, cells)
    width = np.maximum(np.float32(softness) * size, np.float32(_FINEST))[:, None, None]
    away = (np.arange(side, dtype=np.float32) + np.float32(0.5) - centres[..., None]) / width
    # Not below e^-20: numbers too small to be normal ones make the products that follow ten times as slow.
    weights: FloatArray = np.exp(np.maximum(away * away * np.float32(-0.5), np.float32(-20)))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


@lru_cache(maxsize=256)
def sharp(side: int, low: float, high: float, cells: int) -> FloatArray:
    """(cells, side) weights that read one span, from `low` to `high` as shares of the axis; Pillow's LANCZOS."""
    size = (high - low) * side / cells
    centres = low * side + size * (np.arange(cells) + 0.5)
    reach = max(size, 1.0)
    away = (np.arange(side) + 0.5 - centres[:, None]) / reach
    weights = np.where(np.abs(away) < _LANCZOS_LOBES, np.sinc(away) * np.sinc(away / _LANCZOS_LOBES), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype(np.float32)


def product(first: FloatArray, second: FloatArray) -> FloatArray:
    """first @ second, (..., A, B) and (..., B, C), in portions too small for BLAS to start threads.

    Its threads wait for one another longer than so little work takes, and each core may have a worker already.
    """
    step = max(1, _MULTIPLICATIONS // (first.shape[-2] * first.shape[-1]))
    starts = range(0, second.shape[-1], step)
    parts: list[FloatArray] = [first @ second[..., start : start + step] for start in starts]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
