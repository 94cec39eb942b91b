"""Reading a row of pixels between its pixels, as matrices: one for the values, one for how fast they change."""

from __future__ import annotations

import numpy as np

from sdlora.data.arrays import FloatArray, IntArray

_BELOW, _ABOVE = 1, 2  # pixels beyond either end that a place at that end would read as well
_FOUR: IntArray = np.arange(-1, 3).reshape(4, 1, 1)


def centres(side: int) -> FloatArray:
    """(S,) coordinates of an axis's pixels, the whole of it spanning [-1, 1]."""
    return (2 * (np.arange(side, dtype=np.float32) + 0.5) / side - 1).astype(np.float32)


class AxisReader:
    """Reads an axis of S pixels at (M, S) coordinates in [-1, 1]; beyond the edge the outermost pixel goes on.

    Catmull-Rom, as images are resized; linear ones are quicker, but lose a fifth of the drawings cropped at one side.
    Four pixels have a say in each place, and only their weights are computed.
    """

    def __init__(self, coordinates: FloatArray) -> None:
        self._shape = coordinates.shape
        side = coordinates.shape[1]
        places = (((coordinates + 1) * side - 1) / 2).clip(0, side - 1)
        before = np.floor(places)
        self._part: FloatArray = places - before  # of the way from the pixel before to the next one
        self._pixels: IntArray = before.astype(np.int64) + _FOUR  # (4, M, S)

    def weights(self) -> FloatArray:
        """(4, M, S) of the four pixels around each place; they add up to 1."""
        part = self._part
        square = part * part
        weights = np.empty((4, *self._shape), np.float32)
        weights[0] = ((1 - 0.5 * part) * part - 0.5) * part
        weights[1] = (1.5 * part - 2.5) * square + 1
        weights[2] = ((2 - 1.5 * part) * part + 0.5) * part
        weights[3] = (0.5 * part - 0.5) * square
        weights *= (self._pixels >= 0) & (self._pixels < self._shape[1])
        weights /= weights.sum(axis=0)
        return weights

    def slopes(self) -> FloatArray:
        """(4, M, S) how they change with the coordinate."""
        part = self._part
        slopes = np.empty((4, *self._shape), np.float32)
        slopes[0] = (2 - 1.5 * part) * part - 0.5
        slopes[1] = (4.5 * part - 5) * part
        slopes[2] = (4 - 4.5 * part) * part + 0.5
        slopes[3] = (1.5 * part - 1) * part
        slopes *= np.float32(self._shape[1] / 2)
        return slopes

    def left(self, values: FloatArray) -> FloatArray:
        """(M, S, S) matrices that read an image's columns when they are multiplied with it from the left."""
        count, side = self._shape
        wide = _BELOW + side + _ABOVE
        matrices = np.zeros((count, side, wide), np.float32)
        rows = np.arange(count * side).reshape(count, side) * wide + _BELOW
        matrices.reshape(-1)[rows + self._pixels] = values
        return matrices[..., _BELOW:-_ABOVE]

    def right(self, values: FloatArray) -> FloatArray:
        """(M, S, S) matrices that read its rows from the right: the others transposed."""
        count, side = self._shape
        wide = _BELOW + side + _ABOVE
        matrices = np.zeros((count, wide, side), np.float32)
        columns = np.arange(count)[:, None] * (wide * side) + np.arange(side) + _BELOW * side
        matrices.reshape(-1)[columns + side * self._pixels] = values
        return matrices[:, _BELOW:-_ABOVE]
