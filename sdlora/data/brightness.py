"""How bright the dark and the bright end of a picture are."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

DARK_END, BRIGHT_END = 0.05, 0.99
_WEIGHTS = (241, 691, 68)  # of red, green and blue, in thousandths
_WHITE = 255 * 255 * sum(_WEIGHTS)
_ROWS_AT_ONCE = 2**16  # pixels whose intermediate values fit the processor's cache


def brightness_ends(rgb: Image.Image) -> tuple[float, float]:
    """The 5th and the 99th percentile of brightness, each from 0 (black) to 1 (white).

    Brightness is the root of the weighted mean square of the colours, as cleanvision has it (after Finley's HSP).
    Percentiles lie between two pixels' values as numpy's do; the root is taken of those few values only.
    """
    squares = _squared_brightness(np.asarray(rgb).reshape(-1, 3))
    places = [(len(squares) - 1) * share for share in (DARK_END, BRIGHT_END)]
    wanted = sorted({whole for place in places for whole in (math.floor(place), math.ceil(place))})
    squares.partition(wanted)
    dark, bright = (_between(squares, place) for place in places)
    return dark, bright


def _squared_brightness(colours: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """(N, 3) colours -> (N,) squares of brightness, white is `_WHITE`."""
    result = np.empty(len(colours), np.int32)
    for start in range(0, len(colours), _ROWS_AT_ONCE):
        part = colours[start : start + _ROWS_AT_ONCE]
        into = result[start : start + _ROWS_AT_ONCE]
        into[:] = 0
        for channel, weight in enumerate(_WEIGHTS):
            values = part[:, channel].astype(np.int32)
            values *= values
            values *= weight
            into += values
    return result


def _between(squares: npt.NDArray[np.int32], place: float) -> float:
    low, high = (math.sqrt(int(squares[whole]) / _WHITE) for whole in (math.floor(place), math.ceil(place)))
    return low + (high - low) * (place - math.floor(place))
