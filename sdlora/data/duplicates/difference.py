"""Difference of two images after alignment: moved, scaled, cropped, and matched in brightness.

A coarse match at 8x8 pixels excludes most pairs, and gives the starts of the alignment for the remaining pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from sdlora.data.arrays import BoolArray, ByteArray, FloatArray, IntArray
from sdlora.data.duplicates.align import GAINS, Warp, foot_of, inner_products, matching_gains, refine
from sdlora.data.duplicates.fingerprint import THUMBNAIL_SIDE_PX, Fingerprint

_COARSE_LIMIT = 26.0  # grey levels; of true copies 1 % differ more, of other pairs with like hashes 80 %
_STARTS_TRIED = 4  # the most promising of all
_MIN_OVERLAP = 0.72  # share of either image that the other must show
_MAX_STRETCH = 1.12  # largest change of width over height by the alignment
_ROUGH_LIMIT = 22.0  # grey levels after the rough alignment; above it no finer alignment is tried
_FOOTLESS_FACTOR = 2.2  # factor of a difference that is measured without the foot
_BLOCK_SIDE_PX = 4  # side of the squares, the worst of which counts
_USUAL_CONTRAST = 30.0
"""Standard deviation of colours, in grey levels, below which differences count more.

A pale page with a pale emblem differs little in grey levels from the page without it."""
_LEAST_CONTRAST = 3.0  # of a picture; below it differences are noise
_SATURATED_LEVEL = 248.0  # thumbnail values from here on may be clipped by brightening
_PAIRS_PER_ALIGNMENT = 64  # some 8 MB

_CELLS_PER_SIDE = 8
_PAIRS_PER_COARSE_MATCH = 2048  # some 12 MB

# Parts of an image that a copy may show, as spans of both axes: all, the inner 90 %, the upper 88 %, the upper 94 %.
_PARTS = (((0.0, 1.0), (0.0, 1.0)), ((0.05, 0.95), (0.05, 0.95)), ((0.0, 1.0), (0.0, 0.88)), ((0.0, 1.0), (0.0, 0.94)))

# (part of the first image, part of the second image) that are aligned.
_PART_PAIRS = ((0, 0), (0, 1), (1, 0), (0, 2), (2, 0), (0, 3), (3, 0))

Apply = Callable[..., Iterable[FloatArray]]


def _map_between(first_part: int, second_part: int) -> list[float]:
    """Return the map from the first image's coordinates to the second's under which these parts coincide."""
    scales_and_shifts = []
    for axis in (0, 1):
        (from_low, from_high), (to_low, to_high) = (
            tuple(2 * end - 1 for end in _PARTS[part][axis]) for part in (first_part, second_part)
        )
        scale = (to_high - to_low) / (from_high - from_low)
        scales_and_shifts += [scale, to_low - scale * from_low]
    return scales_and_shifts


STARTS: FloatArray = np.array([_map_between(*parts) for parts in _PART_PAIRS], np.float32)
"""(K, 4) maps from the first image's coordinates to the second's, both in [-1, 1]: scale x, shift x, scale y, shift y.

The inverse of each map is included."""


def differences(
    fingerprints: Sequence[Fingerprint], pairs: IntArray, apply: Apply = map, cells: FloatArray | None = None
) -> FloatArray:
    """Compute the difference of each pair at its worst square, in grey levels of 255: 0 for equal images.

    One image is moved, scaled and matched in brightness to fit the other. Gauss-Newton steps do this on reduced images
    from several starts, then on the thumbnails. The result is the root mean square of the worst square of the overlap.
    The average over the whole image would miss that two faces differ only in their mouths. Of pale pictures, the
    result is as large as if their contrast were usual. The foot, where captions are, is left out if all above it agrees
    much better. The result is infinite if the overlap is too small, or if the alignment would stretch the image.

    Args:
        pairs: (N, 2) positions in `fingerprints`.
        apply: a `map`, possibly in several processes.
        cells: `coarse_cells(fingerprints)` if already computed.

    Returns:
        (N,) differences, equal for a pair and its reverse.
    """
    all_differences = np.full(len(pairs), np.inf, np.float32)
    if not len(pairs):
        return all_differences
    rgb = _thumbnails(fingerprints)
    aspects = np.log([fingerprint.aspect for fingerprint in fingerprints]).astype(np.float32)
    # Order each pair by content, because the alignment is not symmetric to the last digit.
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
        all_differences[chunk] = chunk_differences
    return all_differences


def coarse_cells(fingerprints: Sequence[Fingerprint]) -> FloatArray:
    """Compute the input (M, parts, D) of a coarse match, bit-identical for any set of other fingerprints."""
    return _cells_of(_thumbnails(fingerprints))


def _thumbnails(fingerprints: Sequence[Fingerprint]) -> ByteArray:
    """Return the thumbnails as (M, S, S, 3)."""
    side = THUMBNAIL_SIDE_PX
    return np.frombuffer(b"".join(fingerprint.thumbnail for fingerprint in fingerprints), np.uint8).reshape(
        -1, side, side, 3
    )


def _differences(pixels: ByteArray, stretch: FloatArray, starts: FloatArray) -> FloatArray:
    """Compute differences (M,) of thumbnails (M, 2, S, S, 3) from starts (M, K, 4).

    `stretch` (M,) is the logarithm of the ratio of their aspects.
    """
    rgb = pixels.astype(np.float32)
    grey = _mean_of_colours(rgb)  # (M, 2, S, S)
    half = rgb.shape[2] // 2
    rough = grey.reshape(-1, 2, half, 2, half, 2).mean(axis=(3, 5))
    maps, errors = _align_roughly(rough, stretch, starts)
    all_differences = np.full(len(rgb), np.inf, np.float32)
    chosen = np.flatnonzero(errors < _ROUGH_LIMIT)
    if len(chosen):
        fine, _ = refine(grey[chosen, 0], grey[chosen, 1], maps[chosen], steps=3)
        possible = _is_possible(fine, stretch[chosen])
        chosen, fine = chosen[possible], fine[possible]
    if len(chosen):
        all_differences[chosen] = _worst_squares(rgb[chosen], grey[chosen], fine)
    return all_differences


def _align_roughly(grey: FloatArray, stretch: FloatArray, starts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Find the best map (M, 4) of each pair and its root mean square error (M,), infinite without a possible map."""
    start_count = starts.shape[1]
    fixed, moving = (np.repeat(grey[:, side], start_count, axis=0) for side in (0, 1))  # (M * K, S, S)
    maps, errors = refine(fixed, moving, starts.reshape(-1, 4), steps=6)
    errors = np.where(_is_possible(maps, np.repeat(stretch, start_count)), errors, np.inf)
    best = errors.reshape(-1, start_count).argmin(axis=1) + start_count * np.arange(len(grey))
    return maps[best], errors[best]


def _worst_squares(rgb: FloatArray, grey: FloatArray, maps: FloatArray) -> FloatArray:
    """Return the root mean square (N,) of the worst square in the overlap of each pair, at usual contrast."""
    warp = Warp(grey[:, 0], grey[:, 1], maps)
    fixed, moving = rgb[:, 0], rgb[:, 1]
    rows, columns = warp.down.left(warp.down.weights()), warp.across.right(warp.across.weights())
    count, side = moving.shape[:2]
    lines = (rows @ moving.reshape(count, side, -1)).reshape(moving.shape)
    moved = columns.transpose(0, 2, 1)[:, None] @ lines  # (N, 1, S, S) @ (N, S, S, 3)
    inner = _within(warp, 1 - 2.0 / side)  # pixels at the rim lack a neighbour
    inner[:, [0, -1], :] = inner[:, :, [0, -1]] = 0
    # If brightening has clipped the brightest tones, only the other tones show its factor.
    moved_grey: FloatArray = np.matmul(rows @ grey[:, 1], columns)
    unsaturated = _without_foot(_within(warp, 1 + 0.5 / side)) * (np.maximum(grey[:, 0], moved_grey) < _SATURATED_LEVEL)
    unsaturated_gains = matching_gains(unsaturated * grey[:, 0], unsaturated * moved_grey)
    worst = [_worst_square(fixed, moved, inner, gains) for gains in (warp.gains, unsaturated_gains)]
    contrast = np.maximum(_contrast(fixed, inner), _contrast(moved, inner)).clip(_LEAST_CONTRAST)
    least: FloatArray = np.minimum(*worst) * np.maximum(1, _USUAL_CONTRAST / contrast)
    return least


def _contrast(rgb: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the standard deviation (N,) of the colours of images (N, S, S, 3) under weights (N, S, S) of 0 and 1."""
    area = np.maximum(inner_products(weights, weights), 1)
    variance = np.zeros(len(rgb), np.float32)
    for channel in range(3):
        visible = weights * rgb[..., channel]
        variance += inner_products(visible, visible) / area - (inner_products(weights, visible) / area) ** 2
    deviation: FloatArray = np.sqrt(variance.clip(0) / 3)
    return deviation


def _within(warp: Warp, edge: float) -> FloatArray:
    """Return a mask (N, S, S) of pixels that map to within `edge` of the moving image's centre: 1, else 0."""
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
    """Reduce (..., 3) to (...) by mean; numpy's own takes several times as long on so short an axis."""
    mean: FloatArray = (values[..., 0] + values[..., 1] + values[..., 2]) / np.float32(3)
    return mean


def _worst_mean(squares: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the root (N,) of the largest mean of values (N, S, S) over a square block."""
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
    """Return (N,) whether the overlap is large enough and the map does not stretch or mirror."""
    scales = maps[:, [0, 2]]
    shifts = maps[:, [1, 3]]
    positive = ((scales > 0.5) & (scales < 2)).all(axis=1)
    safe = np.where(positive.reshape(-1, 1), scales, 1)
    ends = np.minimum(1, safe + shifts) - np.maximum(-1, shifts - safe)  # of the second image's span of 2
    shared = (ends.clip(0) / 2).prod(axis=1)
    of_first = shared / safe.prod(axis=1)
    pulled = np.abs(np.log(safe[:, 0] / safe[:, 1]) - stretch)
    possible: BoolArray = (
        positive & (shared >= _MIN_OVERLAP) & (of_first >= _MIN_OVERLAP) & (pulled <= math.log(_MAX_STRETCH))
    )
    return possible


def coarse_match(cells: FloatArray, pairs: IntArray, gains: tuple[float, float]) -> FloatArray:
    """Compute the root mean square difference of each pair at 8x8 pixels, under each of STARTS, in grey levels.

    Args:
        cells: (M, parts, D) by `coarse_cells`.
        pairs: (N, 2) positions in `cells`.
        gains: smallest and largest brightness of the first image over the second.

    Returns:
        (N, K) differences.
    """
    energies = np.einsum("mpd,mpd->mp", cells, cells)
    errors = np.empty((len(pairs), len(_PART_PAIRS)), np.float32)
    for start in range(0, len(pairs), _PAIRS_PER_COARSE_MATCH):
        first_positions, second_positions = pairs[start : start + _PAIRS_PER_COARSE_MATCH].T
        for column, (first_part, second_part) in enumerate(_PART_PAIRS):
            products = np.einsum("nd,nd->n", cells[first_positions, first_part], cells[second_positions, second_part])
            first_energies, second_energies = (
                energies[first_positions, first_part],
                energies[second_positions, second_part],
            )
            gain = (products / np.maximum(second_energies, 1)).clip(*gains)
            squares = first_energies - 2 * gain * products + gain * gain * second_energies
            errors[start : start + _PAIRS_PER_COARSE_MATCH, column] = np.sqrt(squares.clip(0) / cells.shape[-1])
    return errors


def _cells_of(rgb: ByteArray) -> FloatArray:
    """Compute mean colours (M, parts, 3 * 7 * 8) of the cells of each part of thumbnails (M, S, S, 3).

    The lowest row of cells is left out, because captions are there. The cells of one image do not depend on the
    other images, to the bit, because each matrix product is of one image.
    """
    count, side = rgb.shape[:2]
    planes = np.ascontiguousarray(rgb.transpose(0, 3, 1, 2), dtype=np.float32)  # (M, 3, S, S)
    rows = np.concatenate([_averages(side, *down) for _, down in _PARTS])  # (parts * 8, S)
    lines = (rows @ planes).reshape(count, 3, len(_PARTS), _CELLS_PER_SIDE, side)
    colours = np.empty((count, len(_PARTS), 3 * (_CELLS_PER_SIDE - 1) * _CELLS_PER_SIDE), np.float32)
    for part, (across, _) in enumerate(_PARTS):
        cells = np.ascontiguousarray(lines[:, :, part, :-1]) @ _averages(side, *across).T  # (M, 3, 7, 8)
        colours[:, part] = cells.reshape(count, -1)
    return colours


def _averages(side: int, low: float, high: float) -> FloatArray:
    """Return weights (8, S) that average the pixels of one axis over 8 equal parts of a span."""
    edges = np.linspace(low * side, high * side, _CELLS_PER_SIDE + 1)
    pixels = np.arange(side)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (covered.clip(0) / np.diff(edges)[:, None]).astype(np.float32)
