"""A first glance at pairs of images: which cannot be copies, and how those that can may lie over each other."""

from __future__ import annotations

import numpy as np

from sdlora.data.arrays import ByteArray, FloatArray, IntArray

_CELLS = 8
_PORTION = 2048  # pairs at once: some 12 MB

# Parts of an image that a copy may be left with, as spans of both axes: all of it, the inner 90 %, the upper 88 %, the
# upper 94 %.
_PARTS = (((0.0, 1.0), (0.0, 1.0)), ((0.05, 0.95), (0.05, 0.95)), ((0.0, 1.0), (0.0, 0.88)), ((0.0, 1.0), (0.0, 0.94)))

# (part of the first image, part of the second) that are laid over each other.
_COMPARED = ((0, 0), (0, 1), (1, 0), (0, 2), (2, 0), (0, 3), (3, 0))


def _map_between(first: int, second: int) -> list[float]:
    """The first image's coordinates to the second's when those parts of them coincide."""
    result = []
    for axis in (0, 1):
        (from_low, from_high), (to_low, to_high) = (
            tuple(2 * end - 1 for end in _PARTS[part][axis]) for part in (first, second)
        )
        scale = (to_high - to_low) / (from_high - from_low)
        result += [scale, to_low - scale * from_low]
    return result


STARTS: FloatArray = np.array([_map_between(*parts) for parts in _COMPARED], np.float32)
"""(K, 4) maps of the first image's coordinates to the second's, both spanning [-1, 1]: scale x, shift x, scale y, shift
y. The reverse of each is there as well."""


def glance(cells: FloatArray, pairs: IntArray, gains: tuple[float, float]) -> FloatArray:
    """Root mean square difference of each pair at 8x8 pixels, under each of STARTS, in grey levels.

    Args:
        cells: (M, parts, D) by `cells_of`.
        pairs: (N, 2) positions of them.
        gains: least and most brightness of the first over the second.

    Returns:
        (N, K)
    """
    energies = np.einsum("mpd,mpd->mp", cells, cells)
    result = np.empty((len(pairs), len(_COMPARED)), np.float32)
    for start in range(0, len(pairs), _PORTION):
        first, second = pairs[start : start + _PORTION].T
        for column, (one, other) in enumerate(_COMPARED):
            products = np.einsum("nd,nd->n", cells[first, one], cells[second, other])
            ours, theirs = energies[first, one], energies[second, other]
            gain = (products / np.maximum(theirs, 1)).clip(*gains)
            squares = ours - 2 * gain * products + gain * gain * theirs
            result[start : start + _PORTION, column] = np.sqrt(squares.clip(0) / cells.shape[-1])
    return result


def cells_of(rgb: ByteArray) -> FloatArray:
    """(M, S, S, 3) thumbnails to (M, parts, 3 * 7 * 8) mean colours of the cells of each part.

    The lowest row of cells is left out, because captions are there. An image's cells are the same to the bit whatever
    images are beside it: all products are of one image's matrices.
    """
    count, side = rgb.shape[:2]
    planes = np.ascontiguousarray(rgb.transpose(0, 3, 1, 2), dtype=np.float32)  # (M, 3, S, S)
    rows = np.concatenate([_averages(side, *down) for _, down in _PARTS])  # (parts * 8, S)
    lines = (rows @ planes).reshape(count, 3, len(_PARTS), _CELLS, side)
    result = np.empty((count, len(_PARTS), 3 * (_CELLS - 1) * _CELLS), np.float32)
    for part, (across, _) in enumerate(_PARTS):
        cells = np.ascontiguousarray(lines[:, :, part, :-1]) @ _averages(side, *across).T  # (M, 3, 7, 8)
        result[:, part] = cells.reshape(count, -1)
    return result


def _averages(side: int, low: float, high: float) -> FloatArray:
    """(8, S) weights of the pixels of one axis in each of 8 equal stretches of a span."""
    edges = np.linspace(low * side, high * side, _CELLS + 1)
    pixels = np.arange(side)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (covered.clip(0) / np.diff(edges)[:, None]).astype(np.float32)
