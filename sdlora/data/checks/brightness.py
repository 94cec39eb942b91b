"""How bright the dark and the bright end of a picture are."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sdlora.data.decoding.stack import Stack

DARK_END, BRIGHT_END = 0.05, 0.99
_WEIGHTS = np.array([0.241, 0.691, 0.068], np.float32)  # of red, green and blue
_AT_ONCE = 3000  # pixels: their intermediate values fit the processor's cache, and BLAS starts no threads for them
_SORTED = 1 << 16  # pixels up to which sorting is quicker than two searches; numpy sorts with vector instructions

FloatArray = npt.NDArray[np.float64]


def dark_ends(stack: Stack) -> FloatArray:
    """(N,) the brightness that 5 % of each picture's pixels do not exceed, from 0 (black) to 1 (white)."""
    return stack.computed(_ends)[:, 0]


def bright_ends(stack: Stack) -> FloatArray:
    """(N,) the brightness that 99 % of each picture's pixels do not exceed."""
    return stack.computed(_ends)[:, 1]


def _ends(stack: Stack) -> FloatArray:
    """(N, 2) the two percentiles of brightness.

    Brightness is the root of the weighted mean square of the colours, as cleanvision has it (after Finley's HSP).
    Percentiles lie between two pixels' values as numpy's do, but the root is taken of those few values only.
    """
    count = len(stack.images)
    squares = _squared_brightness(stack.pixels.reshape(count, -1, 3))
    places = [(squares.shape[1] - 1) * share for share in (DARK_END, BRIGHT_END)]
    if squares.shape[1] <= _SORTED:
        squares.sort(axis=1)
    else:
        _order_around(squares, [math.floor(place) for place in places])
    return np.stack([_at(squares, place) for place in places], axis=1)


def _squared_brightness(colours: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(N, P, 3) colours -> (N, P) squares of brightness times 255."""
    result = np.empty(colours.shape[:2], np.float32)
    for start in range(0, colours.shape[1], _AT_ONCE):
        part = colours[:, start : start + _AT_ONCE].astype(np.float32)
        part *= part
        np.matmul(part, _WEIGHTS, out=result[:, start : start + _AT_ONCE])
    return result


def _order_around(squares: npt.NDArray[np.float32], places: list[int]) -> None:
    """Bring the values that would be at these places, and right after them, there; only what lies beyond is searched.

    For one place at a time: numpy takes several times as long for two.
    """
    passed = 0
    for place in places:
        for target in (place, place + 1):
            if target < squares.shape[1]:
                squares[:, passed:].partition(target - passed, axis=1)
                passed = target + 1


def _at(squares: npt.NDArray[np.float32], place: float) -> FloatArray:
    """(N,) brightness at a place, counted from 0, in the order of the values."""
    whole = math.floor(place)
    low, high = (
        np.sqrt(squares[:, min(one, squares.shape[1] - 1)].astype(np.float64)) / 255 for one in (whole, whole + 1)
    )
    result: FloatArray = low + (high - low) * (place - whole)
    return result
