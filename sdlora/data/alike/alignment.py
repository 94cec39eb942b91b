"""How much two images differ once they are laid over each other: moved, scaled, cropped and as bright as need be."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sdlora.data.alike.fingerprint import THUMBNAIL_SIDE_PX, Fingerprint
from sdlora.data.alike.glance import STARTS, glance

GAINS = (0.7, 1.43)
"""Brightness of one image over the other, within which they may be copies."""

_GLANCE_LIMIT = 26.0  # grey levels; of true copies 1 % differ more at a glance, of other pairs with like hashes 80 %
_STARTS_TRIED = 4  # the most promising of all
_MIN_OVERLAP = 0.72  # share of either image that the other must show
_MAX_STRETCH = 1.12  # of the one's width over its height, when both are laid over each other
_ROUGH_LIMIT = 22.0  # grey levels of the rough alignment above which nothing finer is tried
_FOOT = 0.16  # share of the height that a caption may cover
_WITHOUT_FOOT = 2.2  # how much more a difference counts that is taken of the rest alone
_BLOCK = 4  # thumbnail pixels; the worst square of so many counts
_BRIGHTEST = 248.0  # thumbnail values from here on may have been cut off by brightening
_AT_ONCE = 64  # pairs per portion: some 8 MB

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


def differences(looks: Sequence[Fingerprint], pairs: IntArray) -> FloatArray:
    """How much the images of each pair differ where they differ most, in grey levels of 255: 0 for the same look.

    One is laid over the other: moved, scaled and its brightness matched, by Gauss-Newton steps on a rough picture from
    several starts, then on the thumbnails. The root mean square of the worst square of the shared part counts; the
    average over the whole image would call two faces alike that differ in their mouths alone. The foot, where captions
    are, is left out where all above it agrees much better. Infinite where too little is shared, or the one would have
    to be stretched.

    Args:
        pairs: (N, 2) positions in `looks`.

    Returns:
        (N,) the same for a pair and its reverse.
    """
    result = np.full(len(pairs), np.inf, np.float32)
    if not len(pairs):
        return result
    side = THUMBNAIL_SIDE_PX
    rgb = np.frombuffer(b"".join(one.thumbnail for one in looks), np.uint8).reshape(-1, side, side, 3)
    aspects = np.log([one.aspect for one in looks]).astype(np.float32)
    # In an order that does not depend on how a pair is given: aligning is not symmetric to the last digit.
    rank = np.empty(len(looks), np.int64)
    rank[sorted(range(len(looks)), key=lambda one: looks[one].thumbnail)] = np.arange(len(looks))
    pairs = np.where((rank[pairs[:, 0]] > rank[pairs[:, 1]])[:, None], pairs[:, ::-1], pairs)
    errors = glance(rgb, pairs, GAINS)  # (N, starts)
    chosen = np.flatnonzero(errors.min(axis=1) < _GLANCE_LIMIT)
    starts = np.argsort(errors, axis=1, kind="stable")[:, :_STARTS_TRIED]
    for begin in range(0, len(chosen), _AT_ONCE):
        portion = chosen[begin : begin + _AT_ONCE]
        first, second = pairs[portion].T
        both = rgb[pairs[portion]].astype(np.float32)  # (M, 2, S, S, 3)
        result[portion] = _differences(both, aspects[first] - aspects[second], STARTS[starts[portion]])
    return result


def _differences(rgb: FloatArray, stretch: FloatArray, starts: FloatArray) -> FloatArray:
    """As above for (M, 2, S, S, 3) thumbnails, from (M, K, 4) starts; `stretch` is the log ratio of their aspects."""
    grey = _mean_of_colours(rgb)  # (M, 2, S, S)
    half = rgb.shape[2] // 2
    rough = grey.reshape(-1, 2, half, 2, half, 2).mean(axis=(3, 5))
    maps, errors = _align_roughly(rough, stretch, starts)
    result = np.full(len(rgb), np.inf, np.float32)
    chosen = np.flatnonzero(errors < _ROUGH_LIMIT)
    if len(chosen):
        fine, _ = _refine(grey[chosen, 0], grey[chosen, 1], maps[chosen], steps=3)
        possible = _is_possible(fine, stretch[chosen])
        result[chosen[possible]] = _worst_squares(rgb[chosen[possible]], grey[chosen[possible]], fine[possible])
    return result


def _align_roughly(grey: FloatArray, stretch: FloatArray, starts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The best map of each pair, (M, 4), and its root mean square error; infinite where no map is possible."""
    tried = starts.shape[1]
    first, second = (np.repeat(grey[:, which], tried, axis=0) for which in (0, 1))  # (M * K, S, S)
    maps, errors = _refine(first, second, starts.reshape(-1, 4), steps=6)
    errors = np.where(_is_possible(maps, np.repeat(stretch, tried)), errors, np.inf)
    best = errors.reshape(-1, tried).argmin(axis=1) + tried * np.arange(len(grey))
    return maps[best], errors[best]


def _refine(first: FloatArray, second: FloatArray, maps: FloatArray, steps: int) -> tuple[FloatArray, FloatArray]:
    """Gauss-Newton steps towards the map under which the second image looks like the first; the best one on the way."""
    axis = _centres(first.shape[1])
    best, least = maps, np.full(len(maps), np.inf, np.float32)
    for left in range(steps, -1, -1):
        view = _View(first, second, maps)
        better = view.errors < least
        best, least = np.where(better[:, None], maps, best), np.where(better, view.errors, least)
        if not left:
            break
        across, down = view.slopes()
        jacobian = np.stack([across * axis, across, down * axis[:, None], down], axis=1).reshape(len(maps), 4, -1)
        weighted = jacobian * view.weights.reshape(len(maps), 1, -1)
        normal = weighted @ jacobian.transpose(0, 2, 1)  # (M, 4, 4)
        # Damped, so that plain images, whose slopes tell nothing, stay where they are.
        normal += np.eye(4, dtype=np.float32) * (1e-3 * np.trace(normal, axis1=1, axis2=2) + 1e-2)[:, None, None]
        towards = weighted @ view.residuals.reshape(len(maps), -1, 1)
        step = np.linalg.solve(normal, towards)[..., 0]
        maps = maps + step.clip(-0.1, 0.1)
    return best, least


class _View:
    """The second image under a map, beside the first one.

    Attributes:
        moved: (M, S, S) the second image in the first one's coordinates.
        weights: (M, S, S) 1 where both images are, but for the foot, else 0.
        gains: (M,) brightness of the first over the second.
        residuals: (M, S, S) what is left of the first.
        errors: (M,) their root mean square.
    """

    def __init__(self, first: FloatArray, second: FloatArray, maps: FloatArray) -> None:
        side = first.shape[1]
        self._second, self._side = second, side
        centres = _centres(side)
        self.horizontal = maps[:, 0:1] * centres + maps[:, 1:2]  # (M, S)
        self.vertical = maps[:, 2:3] * centres + maps[:, 3:4]
        self.weights = _without_foot(self.shared(1.0 + 0.5 / side))
        self._across, self._down = _Interpolation(self.horizontal), _Interpolation(self.vertical)
        self.columns, self.rows = self._across.weights(), self._down.weights()
        self.moved: FloatArray = np.matmul(self.rows @ second, self.columns.transpose(0, 2, 1))
        self.gains: FloatArray = _gains(first, self.moved, self.weights)
        self.residuals: FloatArray = np.subtract(first, self.gains[:, None, None] * self.moved)
        area = np.maximum(self.weights.sum(axis=(1, 2)), 1)
        self.errors: FloatArray = np.sqrt((self.weights * self.residuals**2).sum(axis=(1, 2)) / area)

    def shared(self, edge: float) -> FloatArray:
        """(M, S, S) 1 where the second image has something within `edge` of its middle, else 0."""
        across, down = np.abs(self.horizontal) <= edge, np.abs(self.vertical) <= edge
        both: FloatArray = (across[:, None, :] & down[:, :, None]).astype(np.float32)
        return both

    def slopes(self) -> tuple[FloatArray, FloatArray]:
        """How the moved image changes with the horizontal and with the vertical coordinate."""
        gains = self.gains[:, None, None]
        across = self.rows @ self._second @ self._across.slopes().transpose(0, 2, 1)
        down = self._down.slopes() @ self._second @ self.columns.transpose(0, 2, 1)
        return np.multiply(gains, across), np.multiply(gains, down)


def _worst_squares(rgb: FloatArray, grey: FloatArray, maps: FloatArray) -> FloatArray:
    """(N,) root mean square of the worst square of the part that both images of a pair show."""
    view = _View(grey[:, 0], grey[:, 1], maps)
    first, second = rgb[:, 0], rgb[:, 1]
    rows, columns = view.rows, view.columns
    count, side = second.shape[:2]
    down = (rows @ second.reshape(count, side, -1)).reshape(second.shape)
    moved = columns[:, None] @ down  # (N, 1, S, S) @ (N, S, S, 3)
    inner = view.shared(1 - 2.0 / rgb.shape[2])  # at the rim a neighbour is missing
    inner[:, [0, -1], :] = inner[:, :, [0, -1]] = 0
    # Where brightening has cut off the brightest tones, only the others tell by how much it was.
    unsaturated = view.weights * (np.maximum(grey[:, 0], view.moved) < _BRIGHTEST)
    worst = [
        _worst_square(first, moved, inner, gains) for gains in (view.gains, _gains(grey[:, 0], view.moved, unsaturated))
    ]
    least: FloatArray = np.minimum(*worst)
    return least


def _worst_square(first: FloatArray, moved: FloatArray, weights: FloatArray, gains: FloatArray) -> FloatArray:
    matched = gains[:, None, None, None] * moved
    error = first - matched
    cut_off = ((moved >= _BRIGHTEST) & (error > 0)) | ((first >= _BRIGHTEST) & (error < 0))
    squares = _mean_of_colours(np.where(cut_off, 0, error**2))  # (N, S, S)
    least: FloatArray = np.minimum(
        _worst_mean(squares, weights), _WITHOUT_FOOT * _worst_mean(squares, _without_foot(weights))
    )
    return least


def _mean_of_colours(values: FloatArray) -> FloatArray:
    """(..., 3) to (...); numpy's own mean over so short an axis takes several times as long."""
    mean: FloatArray = (values[..., 0] + values[..., 1] + values[..., 2]) / np.float32(3)
    return mean


def _worst_mean(squares: FloatArray, weights: FloatArray) -> FloatArray:
    """(N,) root of the largest mean of (N, S, S) values over a square block of them."""
    count, side = len(squares), squares.shape[1] // _BLOCK
    shape = (count, side, _BLOCK, side, _BLOCK)
    area = weights.reshape(shape).sum(axis=(2, 4))
    mean = (weights * squares).reshape(shape).sum(axis=(2, 4)) / np.maximum(area, 1)
    mean[area < _BLOCK * _BLOCK / 2] = 0
    worst: FloatArray = np.sqrt(mean.max(axis=(1, 2)))
    return worst


def _without_foot(weights: FloatArray) -> FloatArray:
    side = weights.shape[1]
    upper = weights.copy()
    upper[:, side - round(_FOOT * side) :] = 0
    return upper


def _is_possible(maps: FloatArray, stretch: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether enough of both images is shared, and neither is stretched or mirrored."""
    scales = maps[:, [0, 2]]
    shifts = maps[:, [1, 3]]
    positive = ((scales > 0.5) & (scales < 2)).all(axis=1)
    safe = np.where(positive.reshape(-1, 1), scales, 1)
    ends = np.minimum(1, safe + shifts) - np.maximum(-1, shifts - safe)  # of the second image's span of 2
    shared = (ends.clip(0) / 2).prod(axis=1)
    of_first = shared / safe.prod(axis=1)
    pulled = np.abs(np.log(safe[:, 0] / safe[:, 1]) - stretch)
    result: npt.NDArray[np.bool_] = (
        positive & (shared >= _MIN_OVERLAP) & (of_first >= _MIN_OVERLAP) & (pulled <= math.log(_MAX_STRETCH))
    )
    return result


def _gains(first: FloatArray, moved: FloatArray, weights: FloatArray) -> FloatArray:
    """Least squares of first - gain * moved; 1 where there is nothing to go by."""
    prior = 0.02 * 128.0**2 * first.shape[1] * first.shape[2]
    products = (weights * first * moved).sum(axis=(1, 2))
    energies = (weights * moved * moved).sum(axis=(1, 2))
    gains: FloatArray = ((products + prior) / (energies + prior)).clip(*GAINS)
    return gains


class _Interpolation:
    """Reads an axis of S pixels at (M, S) coordinates in [-1, 1]; beyond the edge the outermost pixel goes on.

    Catmull-Rom, as images are resized; linear ones are quicker, but lose a fifth of the drawings cropped at one side.
    Four pixels have a say in each place, and only their weights are computed.
    """

    def __init__(self, coordinates: FloatArray) -> None:
        count, self._side = coordinates.shape
        places = (((coordinates + 1) * self._side - 1) / 2).clip(0, self._side - 1)
        lowest = np.floor(places) - 1
        pixels = lowest[..., None] + np.arange(4, dtype=np.float32)
        self._distance: FloatArray = places[..., None] - pixels
        self._away: FloatArray = np.abs(self._distance)
        # One pixel more below the edge and two above it, whose weights are dropped.
        rows = np.arange(count * self._side).reshape(count, self._side, 1) * (self._side + 3)
        self._filed = rows + pixels.astype(np.int64) + 1

    def weights(self) -> FloatArray:
        """(M, S, S) matrices that read the axis."""
        away = self._away
        # By Horner's rule: numpy's power takes ten times as long as the products.
        near, far = (1.5 * away - 2.5) * away * away + 1, ((-0.5 * away + 2.5) * away - 4) * away + 2
        weights = self._matrices(np.where(away < 1, near, far))
        weights /= weights.sum(axis=-1, keepdims=True)
        return weights

    def slopes(self) -> FloatArray:
        """(M, S, S) how they change with the coordinates."""
        away = self._away
        slopes = np.where(away < 1, (4.5 * away - 5) * away, (-1.5 * away + 5) * away - 4)
        slopes *= np.sign(self._distance) * np.float32(self._side / 2)
        return self._matrices(slopes)

    def _matrices(self, values: FloatArray) -> FloatArray:
        wide = np.zeros((len(values), self._side, self._side + 3), np.float32)
        wide.reshape(-1)[self._filed] = values
        return np.ascontiguousarray(wide[..., 1:-2])


def _centres(side: int) -> FloatArray:
    return (2 * (np.arange(side, dtype=np.float32) + 0.5) / side - 1).astype(np.float32)
