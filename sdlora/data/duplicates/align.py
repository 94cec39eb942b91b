"""Image alignment by Gauss-Newton steps: the map from a fixed to a moving image with the least difference."""

from __future__ import annotations

import numpy as np

from sdlora.data.arrays import FloatArray, IntArray

GAINS = (0.7, 1.43)
"""Range of brightness ratios within which two images may be copies."""

_FOOT_SHARE = 0.16  # share of the height that a caption may cover
_LONGEST_STEP = 0.1  # of a scale or a shift
_PADDING_BELOW, _PADDING_ABOVE = 1, 2  # pixels beyond either end that a position at that end reads
_NEIGHBOURS: IntArray = np.arange(-1, 3).reshape(4, 1, 1)


def refine(fixed: FloatArray, moving: FloatArray, maps: FloatArray, steps: int) -> tuple[FloatArray, FloatArray]:
    """Refine the maps that align moving images with fixed images.

    Args:
        fixed, moving: (M, S, S) grey levels.
        maps: (M, 4) from fixed to moving coordinates, see `sdlora.data.duplicates.difference.STARTS`.
        steps: number of Gauss-Newton steps.

    Returns:
        (M, 4) the best map of all steps, and (M,) the root mean square difference under it, without the foot.
    """
    best, least = maps, np.full(len(maps), np.inf, np.float32)
    for steps_left in range(steps, -1, -1):
        warp = Warp(fixed, moving, maps)
        better = warp.errors < least
        best, least = np.where(better[:, None], maps, best), np.where(better, warp.errors, least)
        if steps_left:
            maps = maps + warp.step()
    return best, least


class Warp:
    """Moving images warped by maps, and their residuals against fixed images.

    Attributes:
        across, down: interpolation along the moving image's rows and columns.
        gains: (M,) brightness of the fixed over the moving image.
        errors: (M,) root mean square residual in the overlap of both images, without the foot.
    """

    def __init__(self, fixed: FloatArray, moving: FloatArray, maps: FloatArray) -> None:
        side = fixed.shape[1]
        axis = _centres(side)
        self._horizontal = maps[:, 0:1] * axis + maps[:, 1:2]  # (M, S)
        self._vertical = maps[:, 2:3] * axis + maps[:, 3:4]
        self.across, self.down = _AxisReader(self._horizontal), _AxisReader(self._vertical)
        self._columns, self._rows = self.inside(1.0 + 0.5 / side)
        self._rows[:, side - foot_of(side) :] = 0
        # The weights zero all pixels outside the overlap: (4, M, S) values are fewer than (M, S, S).
        self._reading_across = self.across.right(self.across.weights() * self._columns)
        self._moving = moving
        self._lines = self.down.left(self.down.weights() * self._rows) @ moving  # (M, S, S)
        moved: FloatArray = np.matmul(self._lines, self._reading_across)
        visible = fixed * self._rows[:, :, None] * self._columns[:, None, :]
        self.gains = matching_gains(visible, moved)
        self._residuals = np.subtract(visible, self.gains[:, None, None] * moved, out=visible)
        area = np.maximum(self._rows.sum(axis=1) * self._columns.sum(axis=1), 1)
        self.errors: FloatArray = np.sqrt(inner_products(self._residuals, self._residuals) / area)

    def inside(self, edge: float) -> tuple[FloatArray, FloatArray]:
        """Return masks (M, S) of columns and rows that map to within `edge` of the moving image's centre: 1, else 0."""
        columns, rows = np.abs(self._horizontal) <= edge, np.abs(self._vertical) <= edge
        return columns.astype(np.float32), rows.astype(np.float32)

    def step(self) -> FloatArray:
        """Compute the Gauss-Newton step (M, 4) of the maps, clipped to a safe length."""
        axis = _centres(self._moving.shape[1])
        gains = self.gains[:, None, None]
        across: FloatArray = np.matmul(self._lines, self.across.right(self.across.slopes() * self._columns))
        across *= gains
        lines = self.down.left(self.down.slopes() * self._rows) @ self._moving
        down: FloatArray = np.matmul(lines, self._reading_across)
        down *= gains
        slopes: list[FloatArray] = [np.multiply(across, axis), across, np.multiply(down, axis[:, None]), down]
        count = len(self.gains)
        normal, towards = np.empty((count, 4, 4), np.float32), np.empty((count, 4, 1), np.float32)
        for row, slope in enumerate(slopes):
            towards[:, row, 0] = inner_products(slope, self._residuals)
            # Separate products: one (4, S * S) @ (S * S, 4) matrix product takes several times as long.
            for column, other_slope in enumerate(slopes[: row + 1]):
                normal[:, row, column] = normal[:, column, row] = inner_products(slope, other_slope)
        # Damping keeps plain images, which have no slopes, in place.
        normal += np.eye(4, dtype=np.float32) * (1e-3 * np.trace(normal, axis1=1, axis2=2) + 1e-2)[:, None, None]
        steps: FloatArray = np.linalg.solve(normal, towards)[..., 0].clip(-_LONGEST_STEP, _LONGEST_STEP)
        return steps


def foot_of(side: int) -> int:
    """Return the number of lowest rows, of `side` rows, that a caption may cover (the foot)."""
    return round(_FOOT_SHARE * side)


def matching_gains(fixed: FloatArray, moved: FloatArray) -> FloatArray:
    """Return the gains (M,) that minimise |fixed - gain * moved|^2 over (M, S, S), pulled towards 1 for dark images."""
    prior = 0.02 * 128.0**2 * fixed.shape[1] * fixed.shape[2]
    gains: FloatArray = ((inner_products(fixed, moved) + prior) / (inner_products(moved, moved) + prior)).clip(*GAINS)
    return gains


def inner_products(images: FloatArray, other_images: FloatArray) -> FloatArray:
    """Return inner products (M,) of images (M, S, S)."""
    products: FloatArray = np.vecdot(images.reshape(len(images), -1), other_images.reshape(len(other_images), -1))
    return products


def _centres(side: int) -> FloatArray:
    """Return the pixel centres (S,) of an axis that spans [-1, 1]."""
    return (2 * (np.arange(side, dtype=np.float32) + 0.5) / side - 1).astype(np.float32)


class _AxisReader:
    """Catmull-Rom interpolation along one axis, as matrices for values and for slopes.

    The axis of S pixels is read at (M, S) coordinates in [-1, 1]; beyond the edge the outermost pixel is repeated. Each
    position depends on four pixels, and only their weights are computed. Linear interpolation is faster, but misses a
    fifth of the drawings cropped at one side.
    """

    def __init__(self, coordinates: FloatArray) -> None:
        self._shape = coordinates.shape
        side = coordinates.shape[1]
        positions = (((coordinates + 1) * side - 1) / 2).clip(0, side - 1)
        before = np.floor(positions)
        self._fractions: FloatArray = positions - before  # of the distance from the pixel before to the next pixel
        self._pixels: IntArray = before.astype(np.int64) + _NEIGHBOURS  # (4, M, S)

    def weights(self) -> FloatArray:
        """Return the weights (4, M, S) of the four pixels around each position; they sum to 1."""
        fraction = self._fractions
        square = fraction * fraction
        weights = np.empty((4, *self._shape), np.float32)
        weights[0] = ((1 - 0.5 * fraction) * fraction - 0.5) * fraction
        weights[1] = (1.5 * fraction - 2.5) * square + 1
        weights[2] = ((2 - 1.5 * fraction) * fraction + 0.5) * fraction
        weights[3] = (0.5 * fraction - 0.5) * square
        weights *= (self._pixels >= 0) & (self._pixels < self._shape[1])
        weights /= weights.sum(axis=0)
        return weights

    def slopes(self) -> FloatArray:
        """Return the derivatives (4, M, S) of the weights by the coordinate."""
        fraction = self._fractions
        slopes = np.empty((4, *self._shape), np.float32)
        slopes[0] = (2 - 1.5 * fraction) * fraction - 0.5
        slopes[1] = (4.5 * fraction - 5) * fraction
        slopes[2] = (4 - 4.5 * fraction) * fraction + 0.5
        slopes[3] = (1.5 * fraction - 1) * fraction
        slopes *= np.float32(self._shape[1] / 2)
        return slopes

    def left(self, values: FloatArray) -> FloatArray:
        """Return matrices (M, S, S) that interpolate an image's columns by multiplication from the left."""
        count, side = self._shape
        padded_side = _PADDING_BELOW + side + _PADDING_ABOVE
        matrices = np.zeros((count, side, padded_side), np.float32)
        rows = np.arange(count * side).reshape(count, side) * padded_side + _PADDING_BELOW
        matrices.reshape(-1)[rows + self._pixels] = values
        return matrices[..., _PADDING_BELOW:-_PADDING_ABOVE]

    def right(self, values: FloatArray) -> FloatArray:
        """Return matrices (M, S, S) that interpolate rows from the right: the transpose of `left`."""
        count, side = self._shape
        padded_side = _PADDING_BELOW + side + _PADDING_ABOVE
        matrices = np.zeros((count, padded_side, side), np.float32)
        columns = np.arange(count)[:, None] * (padded_side * side) + np.arange(side) + _PADDING_BELOW * side
        matrices.reshape(-1)[columns + side * self._pixels] = values
        return matrices[:, _PADDING_BELOW:-_PADDING_ABOVE]
