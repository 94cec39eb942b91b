"""Brightness checks: reject images without bright parts, or without dark parts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sdlora.data.arrays import ByteArray, DoubleArray, FloatArray
from sdlora.data.checks.base import Check, Picture
from sdlora.data.decoding.stack import Stack

if TYPE_CHECKING:
    from sdlora.data.config import DataConfig


DARK_END, BRIGHT_END = 0.05, 0.99
_CHANNEL_WEIGHTS = np.array([0.241, 0.691, 0.068], np.float32)  # of red, green and blue
_PIXELS_PER_PRODUCT = 3000  # small enough for the processor's cache, and for BLAS to start no threads
_MAX_PIXELS_SORTED = 1 << 16  # sorting is faster than two partitions up to here: numpy sorts with vector instructions


def bright_end(picture: Picture) -> float | None:
    """Brightness that 99 % of the pixels do not exceed, 0 (black) to 1 (white).

    Source: cleanvision 0.3.7, dark_score.
    """
    return picture.of_pixels(bright_ends)


def _rejects_dark(score: float, config: DataConfig) -> str | None:
    if score >= config.dark_threshold:
        return None
    return (
        f"dark: 99 % of it is no brighter than {score:.2f} of 1, less than dark_threshold = {config.dark_threshold:g}"
    )


DARK = Check("dark", 1, bright_end, ("dark_threshold",), _rejects_dark, depends_on_background=True)


def dark_end(picture: Picture) -> float | None:
    """Distance from white that 95 % of the pixels do not exceed: 0 for white, 1 for black.

    A line drawing with ink on less than 5 % of white paper scores 0, like an overexposed photograph. The check is
    therefore off by default; cleanvision's threshold for photographs is 0.05.

    Source: cleanvision 0.3.7, light_score.
    """
    dark = picture.of_pixels(dark_ends)
    return None if dark is None else 1.0 - dark


def _rejects_light(score: float, config: DataConfig) -> str | None:
    if score >= config.light_threshold:
        return None
    return f"light: 95 % of it is within {score:.2f} of white, less than light_threshold = {config.light_threshold:g}"


LIGHT = Check("light", 1, dark_end, ("light_threshold",), _rejects_light, depends_on_background=True)


def dark_ends(stack: Stack) -> DoubleArray:
    """Return the brightness (N,) that 5 % of each picture's pixels do not exceed, from 0 (black) to 1 (white)."""
    return stack.computed(_ends)[:, 0]


def bright_ends(stack: Stack) -> DoubleArray:
    """Return the brightness (N,) that 99 % of each picture's pixels do not exceed."""
    return stack.computed(_ends)[:, 1]


def _ends(stack: Stack) -> DoubleArray:
    """Return the 5th and 99th percentile of brightness, (N, 2).

    Brightness is the root of the weighted mean square of the colours, as in cleanvision (after Finley's HSP).
    Percentiles are interpolated as in numpy, but the root is taken of the few values at the percentiles only.
    """
    count = len(stack.images)
    squares = _squared_brightness(stack.pixels.reshape(count, -1, 3))
    positions = [(squares.shape[1] - 1) * share for share in (DARK_END, BRIGHT_END)]
    if squares.shape[1] <= _MAX_PIXELS_SORTED:
        squares.sort(axis=1)
    else:
        _order_around(squares, [math.floor(position) for position in positions])
    return np.stack([_brightness_at(squares, position) for position in positions], axis=1)


def _squared_brightness(colours: ByteArray) -> FloatArray:
    """Return squares (N, P) of 255 times the brightness of colours (N, P, 3)."""
    squares = np.empty(colours.shape[:2], np.float32)
    for start in range(0, colours.shape[1], _PIXELS_PER_PRODUCT):
        chunk = colours[:, start : start + _PIXELS_PER_PRODUCT].astype(np.float32)
        chunk *= chunk
        np.matmul(chunk, _CHANNEL_WEIGHTS, out=squares[:, start : start + _PIXELS_PER_PRODUCT])
    return squares


def _order_around(squares: FloatArray, positions: list[int]) -> None:
    """Partition each row in place so that the values at these positions and the next ones are in sorted order.

    One position at a time, because numpy's partition takes several times as long for two. Only the part after the last
    ordered position is partitioned.
    """
    ordered_count = 0
    for position in positions:
        for target in (position, position + 1):
            if target < squares.shape[1]:
                squares[:, ordered_count:].partition(target - ordered_count, axis=1)
                ordered_count = target + 1


def _brightness_at(squares: FloatArray, position: float) -> DoubleArray:
    """Return the brightness (N,) at a fractional position, from 0, among the ordered values."""
    before = math.floor(position)
    low, high = (
        np.sqrt(squares[:, min(index, squares.shape[1] - 1)].astype(np.float64)) / 255 for index in (before, before + 1)
    )
    brightness: DoubleArray = low + (high - low) * (position - before)
    return brightness
