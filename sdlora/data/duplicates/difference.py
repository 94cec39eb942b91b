"""The difference of two images laid over each other: moved, scaled, cropped and as bright as need be.

A coarse match at 8x8 pixels says which pairs cannot be copies, and where the alignment of the others starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from sdlora.data.arrays import BoolArray, ByteArray, FloatArray, IntArray
from sdlora.data.duplicates.align import GAINS, Warp, foot_of, matching_gains, refine
from sdlora.data.duplicates.fingerprint import THUMBNAIL_SIDE_PX, Fingerprint

_COARSE_LIMIT = 26.0  # grey levels; of true copies 1 % differ more, of other pairs with like hashes 80 %
_STARTS_TRIED = 4  # the most promising of all
_MIN_OVERLAP = 0.72  # share of either image that the other must show
_MAX_STRETCH = 1.12  # of the one's width over its height, when both are laid over each other
_ROUGH_LIMIT = 22.0  # grey levels of the rough alignment above which nothing finer is tried
_FOOTLESS_FACTOR = 2.2  # how much more a difference counts that is taken of the rest alone
_BLOCK_SIDE_PX = 4  # thumbnail pixels; the worst square of so many counts
_SATURATED_LEVEL = 248.0  # thumbnail values from here on may have been cut off by brightening
_PAIRS_PER_ALIGNMENT = 64  # aligned: some 8 MB

_CELLS_PER_SIDE = 8
_PAIRS_PER_COARSE_MATCH = 2048  # coarsely: some 12 MB

# Parts of an image that a copy may be left with, as spans of both axes: all of it, the inner 90 %, the upper 88 %, the
# upper 94 %.
_PARTS = (((0.0, 1.0), (0.0, 1.0)), ((0.05, 0.95), (0.05, 0.95)), ((0.0, 1.0), (0.0, 0.88)), ((0.0, 1.0), (0.0, 0.94)))

# (part of the first image, part of the second) that are laid over each other.
_PART_PAIRS = ((0, 0), (0, 1), (1, 0), (0, 2), (2, 0), (0, 3), (3, 0))

Apply = Callable[..., Iterable[FloatArray]]


def _map_between(first_part: int, second_part: int) -> list[float]:
    """The first image's coordinates to the second's when those parts of them coincide."""
    result = []
    for axis in (0, 1):
        (from_low, from_high), (to_low, to_high) = (
            tuple(2 * end - 1 for end in _PARTS[part][axis]) for part in (first_part, second_part)
        )
        scale = (to_high - to_low) / (from_high - from_low)
        result += [scale, to_low - scale * from_low]
    return result


STARTS: FloatArray = np.array([_map_between(*parts) for parts in _PART_PAIRS], np.float32)
"""(K, 4) maps of the first image's coordinates to the second's, both spanning [-1, 1]: scale x, shift x, scale y, shift
y. The reverse of each is there as well."""


def differences(
    fingerprints: Sequence[Fingerprint], pairs: IntArray, apply: Apply = map, cells: FloatArray | None = None
) -> FloatArray:
    """How much the images of each pair differ where they differ most, in grey levels of 255: 0 for the same look.

    One is laid over the other: moved, scaled and its brightness matched, by Gauss-Newton steps on a rough picture from
    several starts, then on the thumbnails. The root mean square of the worst square of the shared part counts; the
    average over the whole image would call two faces alike that differ in their mouths alone. The foot, where captions
    are, is left out where all above it agrees much better. Infinite where too little is shared, or the one would have
    to be stretched.

    Args:
        pairs: (N, 2) positions in `fingerprints`.
        apply: does what `map` does, perhaps in several processes.
        cells: what `coarse_cells` made of the fingerprints, if it is at hand.

    Returns:
        (N,) the same for a pair and its reverse.
    """
    result = np.full(len(pairs), np.inf, np.float32)
    if not len(pairs):
        return result
    rgb = _thumbnails(fingerprints)
    aspects = np.log([fingerprint.aspect for fingerprint in fingerprints]).astype(np.float32)
    # In an order that does not depend on how a pair is given: aligning is not symmetric to the last digit.
    rank = np.empty(len(fingerprints), np.int64)
    rank[sorted(range(len(fingerprints)), key=lambda index: fingerprints[index].thumbnail)] = np.arange(
        len(fingerprints)
    )
    pairs = np.where((rank[pairs[:, 0]] > rank[pairs[:, 1]])[:, None], pairs[:, ::-1], pairs)
    errors = coarse_match(_cells_of(rgb) if cells is None else cells, pairs, GAINS)  # (N, starts)
    plausible = np.flatnonzero(errors.min(axis=1) < _COARSE_LIMIT)
    starts = np.argsort(errors, axis=1, kind="stable")[:, :_STARTS_TRIED]
    pair_chunks = [
        plausible[begin : begin + _PAIRS_PER_ALIGNMENT] for begin in range(0, len(plausible), _PAIRS_PER_ALIGNMENT)
    ]
    thumbnails = (rgb[pairs[chunk]] for chunk in pair_chunks)  # (M, 2, S, S, 3) each
    stretches = (aspects[pairs[chunk, 0]] - aspects[pairs[chunk, 1]] for chunk in pair_chunks)
    maps = (STARTS[starts[chunk]] for chunk in pair_chunks)
    for chunk, chunk_differences in zip(pair_chunks, apply(_differences, thumbnails, stretches, maps), strict=True):
        result[chunk] = chunk_differences
    return result


def coarse_cells(fingerprints: Sequence[Fingerprint]) -> FloatArray:
    """(M, ...) what a coarse match compares of each, the same to the bit whatever other fingerprints there are."""
    return _cells_of(_thumbnails(fingerprints))


def _thumbnails(fingerprints: Sequence[Fingerprint]) -> ByteArray:
    """(M, S, S, 3) thumbnails."""
    side = THUMBNAIL_SIDE_PX
    return np.frombuffer(b"".join(fingerprint.thumbnail for fingerprint in fingerprints), np.uint8).reshape(
        -1, side, side, 3
    )


def _differences(pixels: ByteArray, stretch: FloatArray, starts: FloatArray) -> FloatArray:
    """As above for (M, 2, S, S, 3) thumbnails, from (M, K, 4) starts; `stretch` is the log ratio of their aspects."""
    rgb = pixels.astype(np.float32)
    grey = _mean_of_colours(rgb)  # (M, 2, S, S)
    half = rgb.shape[2] // 2
    rough = grey.reshape(-1, 2, half, 2, half, 2).mean(axis=(3, 5))
    maps, errors = _align_roughly(rough, stretch, starts)
    result = np.full(len(rgb), np.inf, np.float32)
    chosen = np.flatnonzero(errors < _ROUGH_LIMIT)
    if len(chosen):
        fine, _ = refine(grey[chosen, 0], grey[chosen, 1], maps[chosen], steps=3)
        possible = _is_possible(fine, stretch[chosen])
        chosen, fine = chosen[possible], fine[possible]
    if len(chosen):
        result[chosen] = _worst_squares(rgb[chosen], grey[chosen], fine)
    return result


def _align_roughly(grey: FloatArray, stretch: FloatArray, starts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The best map of each pair, (M, 4), and its root mean square error; infinite where no map is possible."""
    start_count = starts.shape[1]
    fixed, moving = (np.repeat(grey[:, side], start_count, axis=0) for side in (0, 1))  # (M * K, S, S)
    maps, errors = refine(fixed, moving, starts.reshape(-1, 4), steps=6)
    errors = np.where(_is_possible(maps, np.repeat(stretch, start_count)), errors, np.inf)
    best = errors.reshape(-1, start_count).argmin(axis=1) + start_count * np.arange(len(grey))
    return maps[best], errors[best]


def _worst_squares(rgb: FloatArray, grey: FloatArray, maps: FloatArray) -> FloatArray:
    """(N,) root mean square of the worst square of the part that both images of a pair show."""
    warp = Warp(grey[:, 0], grey[:, 1], maps)
    fixed, moving = rgb[:, 0], rgb[:, 1]
    rows, columns = warp.down.left(warp.down.weights()), warp.across.right(warp.across.weights())
    count, side = moving.shape[:2]
    lines = (rows @ moving.reshape(count, side, -1)).reshape(moving.shape)
    moved = columns.transpose(0, 2, 1)[:, None] @ lines  # (N, 1, S, S) @ (N, S, S, 3)
    inner = _within(warp, 1 - 2.0 / side)  # at the rim a neighbour is missing
    inner[:, [0, -1], :] = inner[:, :, [0, -1]] = 0
    # Where brightening has cut off the brightest tones, only the others tell by how much it was.
    moved_grey: FloatArray = np.matmul(rows @ grey[:, 1], columns)
    unsaturated = _without_foot(_within(warp, 1 + 0.5 / side)) * (np.maximum(grey[:, 0], moved_grey) < _SATURATED_LEVEL)
    unsaturated_gains = matching_gains(unsaturated * grey[:, 0], unsaturated * moved_grey)
    worst = [_worst_square(fixed, moved, inner, gains) for gains in (warp.gains, unsaturated_gains)]
    least: FloatArray = np.minimum(*worst)
    return least


def _within(warp: Warp, edge: float) -> FloatArray:
    """(N, S, S) 1 where the second image has something within `edge` of its middle, else 0."""
    columns, rows = warp.inside(edge)
    return rows[:, :, None] * columns[:, None, :]


def _worst_square(fixed: FloatArray, moved: FloatArray, weights: FloatArray, gains: FloatArray) -> FloatArray:
    matched = gains[:, None, None, None] * moved
    error = fixed - matched
    cut_off = ((moved >= _SATURATED_LEVEL) & (error > 0)) | ((fixed >= _SATURATED_LEVEL) & (error < 0))
    squares = _mean_of_colours(np.where(cut_off, 0, error**2))  # (N, S, S)
    least: FloatArray = np.minimum(
        _worst_mean(squares, weights), _FOOTLESS_FACTOR * _worst_mean(squares, _without_foot(weights))
    )
    return least


def _mean_of_colours(values: FloatArray) -> FloatArray:
    """(..., 3) to (...); numpy's own mean over so short an axis takes several times as long."""
    mean: FloatArray = (values[..., 0] + values[..., 1] + values[..., 2]) / np.float32(3)
    return mean


def _worst_mean(squares: FloatArray, weights: FloatArray) -> FloatArray:
    """(N,) root of the largest mean of (N, S, S) values over a square block of them."""
    count, side = len(squares), squares.shape[1] // _BLOCK_SIDE_PX
    shape = (count, side, _BLOCK_SIDE_PX, side, _BLOCK_SIDE_PX)
    area = weights.reshape(shape).sum(axis=(2, 4))
    mean = (weights * squares).reshape(shape).sum(axis=(2, 4)) / np.maximum(area, 1)
    mean[area < _BLOCK_SIDE_PX * _BLOCK_SIDE_PX / 2] = 0
    worst: FloatArray = np.sqrt(mean.max(axis=(1, 2)))
    return worst


def _without_foot(weights: FloatArray) -> FloatArray:
    side = weights.shape[1]
    upper = weights.copy()
    upper[:, side - foot_of(side) :] = 0
    return upper


def _is_possible(maps: FloatArray, stretch: FloatArray) -> BoolArray:
    """Whether enough of both images is shared, and neither is stretched or mirrored."""
    scales = maps[:, [0, 2]]
    shifts = maps[:, [1, 3]]
    positive = ((scales > 0.5) & (scales < 2)).all(axis=1)
    safe = np.where(positive.reshape(-1, 1), scales, 1)
    ends = np.minimum(1, safe + shifts) - np.maximum(-1, shifts - safe)  # of the second image's span of 2
    shared = (ends.clip(0) / 2).prod(axis=1)
    of_first = shared / safe.prod(axis=1)
    pulled = np.abs(np.log(safe[:, 0] / safe[:, 1]) - stretch)
    result: BoolArray = (
        positive & (shared >= _MIN_OVERLAP) & (of_first >= _MIN_OVERLAP) & (pulled <= math.log(_MAX_STRETCH))
    )
    return result


def coarse_match(cells: FloatArray, pairs: IntArray, gains: tuple[float, float]) -> FloatArray:
    """Root mean square difference of each pair at 8x8 pixels, under each of STARTS, in grey levels.

    Args:
        cells: (M, parts, D) by `_cells_of`.
        pairs: (N, 2) positions of them.
        gains: least and most brightness of the first over the second.

    Returns:
        (N, K)
    """
    energies = np.einsum("mpd,mpd->mp", cells, cells)
    result = np.empty((len(pairs), len(_PART_PAIRS)), np.float32)
    for start in range(0, len(pairs), _PAIRS_PER_COARSE_MATCH):
        first, second = pairs[start : start + _PAIRS_PER_COARSE_MATCH].T
        for column, (first_part, second_part) in enumerate(_PART_PAIRS):
            products = np.einsum("nd,nd->n", cells[first, first_part], cells[second, second_part])
            first_energies, second_energies = energies[first, first_part], energies[second, second_part]
            gain = (products / np.maximum(second_energies, 1)).clip(*gains)
            squares = first_energies - 2 * gain * products + gain * gain * second_energies
            result[start : start + _PAIRS_PER_COARSE_MATCH, column] = np.sqrt(squares.clip(0) / cells.shape[-1])
    return result


def _cells_of(rgb: ByteArray) -> FloatArray:
    """(M, S, S, 3) thumbnails to (M, parts, 3 * 7 * 8) mean colours of the cells of each part.

    The lowest row of cells is left out, because captions are there. An image's cells are the same to the bit whatever
    images are beside it: all products are of one image's matrices.
    """
    count, side = rgb.shape[:2]
    planes = np.ascontiguousarray(rgb.transpose(0, 3, 1, 2), dtype=np.float32)  # (M, 3, S, S)
    rows = np.concatenate([_averages(side, *down) for _, down in _PARTS])  # (parts * 8, S)
    lines = (rows @ planes).reshape(count, 3, len(_PARTS), _CELLS_PER_SIDE, side)
    result = np.empty((count, len(_PARTS), 3 * (_CELLS_PER_SIDE - 1) * _CELLS_PER_SIDE), np.float32)
    for part, (across, _) in enumerate(_PARTS):
        cells = np.ascontiguousarray(lines[:, :, part, :-1]) @ _averages(side, *across).T  # (M, 3, 7, 8)
        result[:, part] = cells.reshape(count, -1)
    return result


def _averages(side: int, low: float, high: float) -> FloatArray:
    """(8, S) weights of the pixels of one axis in each of 8 equal stretches of a span."""
    edges = np.linspace(low * side, high * side, _CELLS_PER_SIDE + 1)
    pixels = np.arange(side)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (covered.clip(0) / np.diff(edges)[:, None]).astype(np.float32)
