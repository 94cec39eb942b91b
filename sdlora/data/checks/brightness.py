"""How bright the dark and the bright end of a picture are."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

DARK_END, BRIGHT_END = 0.05, 0.99
_WEIGHTS = np.array([0.241, 0.691, 0.068], np.float32)  # of red, green and blue
_AT_ONCE = 3000  # pixels: their intermediate values fit the processor's cache, and BLAS starts no threads for them

FloatArray = npt.NDArray[np.float32]


def brightness_ends(colours: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """The 5th and the 99th percentile of brightness, each from 0 (black) to 1 (white).

    Brightness is the root of the weighted mean square of the colours, as cleanvision has it (after Finley's HSP).
    Percentiles lie between two pixels' values as numpy's do, but the root is taken of those few values only, and only
    what lies beyond the first percentile is searched for the second.

    Args:
        colours: (N, 3) pixels, N > 0.
    """
    squares = _squared_brightness(colours)
    dark_place, bright_place = ((len(squares) - 1) * share for share in (DARK_END, BRIGHT_END))
    dark = _at(squares, dark_place)
    passed = math.floor(dark_place)
    return dark, _at(squares[passed:], bright_place - passed)


def _squared_brightness(colours: npt.NDArray[np.uint8]) -> FloatArray:
    """(N, 3) colours -> (N,) squares of brightness times 255."""
    result = np.empty(len(colours), np.float32)
    for start in range(0, len(colours), _AT_ONCE):
        part = colours[start : start + _AT_ONCE].astype(np.float32)
        part *= part
        np.dot(part, _WEIGHTS, out=result[start : start + _AT_ONCE])
    return result


def _at(squares: FloatArray, place: float) -> float:
    """Brightness at a place, counted from 0, in the order of the values; afterwards smaller ones lie before it."""
    whole = math.floor(place)
    squares.partition(whole)  # for one place numpy is several times as fast as for two
    low = math.sqrt(squares[whole]) / 255
    if whole + 1 == len(squares):
        return low
    high = math.sqrt(squares[whole + 1 :].min()) / 255
    return low + (high - low) * (place - whole)
