"""Which part of an image is its content: without a caption bar, without a plain border."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_FAINT_INK = 0.25
_MIN_CONTENT_LINES = 4
_BAR_SHARE = (0.04, 0.3)  # of the height
_SAME_COLOUR = 32  # grey levels
_PLAIN_BORDER = 12
_PLAIN = 0.95  # share of a row that has the bar's colour, beside the text
_BAR_COLOUR = 0.4  # share of the bar that has its colour, text included

Pixels = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


def without_bars(pixels: Pixels) -> tuple[int, int]:
    """The rows (from, to) of an (H, W, 3) image that lie between caption bars, if it has any.

    A bar is a strip over the full width, at the top or the bottom, of one colour that the image's border does not
    have, with or without text on it.
    """
    height = len(pixels)
    return _bar_rows(pixels[::-1]), height - _bar_rows(pixels)


def content_box(pixels: Pixels) -> Box:
    """The image without its plain border, if it has one; photographs mostly have none.

    In fractions of a pixel: on small images a whole one more or less moves and scales all of the content.
    """
    height, width = pixels.shape[:2]
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    usual = _median(border)
    if (np.abs(border - usual).max(axis=-1) <= _PLAIN_BORDER).mean() < 0.4:
        return 0.0, 0.0, float(width), float(height)
    # Ink: the largest distance in any channel from the border's usual colour, as a share of the largest of all.
    ink = np.abs(pixels - usual).max(axis=2)  # (H, W)
    scale = np.float32(max(int(ink.max()), 1))
    left, right = _content_span(ink.max(axis=0) / scale)
    top, bottom = _content_span(ink.max(axis=1) / scale)
    return left, top, right, bottom


def _bar_rows(pixels: Pixels) -> int:
    """Height of the bar at the bottom, 0 without one."""
    height = len(pixels)
    lowest, highest = round(_BAR_SHARE[0] * height), round(_BAR_SHARE[1] * height)
    strip = pixels[height - highest - 1 :]
    colour = _median(strip[-1])
    if lowest < 2 or _has_colour(strip[-1], colour).mean() < _PLAIN:
        return 0
    if _has_colour(pixels[: height - highest, [0, -1]], colour).mean() > 0.5:
        return 0  # the border goes on
    share = _has_colour(strip, colour).mean(axis=1)  # per row
    for start in range(1, len(strip) - max(lowest, 3) + 1):
        # The bar begins with a plain row under one that is clearly something else.
        if share[start] >= _PLAIN and share[start - 1] < 0.6 and share[start:].mean() >= _BAR_COLOUR:
            return len(strip) - start
    return 0


def _median(colours: Pixels) -> npt.NDArray[np.int16]:
    """(3,) of (N, 3); of an even number the upper one."""
    middle: npt.NDArray[np.int16] = np.sort(colours, axis=0)[len(colours) // 2].astype(np.int16)
    return middle


def _has_colour(pixels: Pixels, colour: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
    near: npt.NDArray[np.bool_] = np.abs(pixels - colour).max(axis=-1) <= _SAME_COLOUR
    return near


def _content_span(ink: FloatArray) -> tuple[float, float]:
    """Where content starts and ends along one axis, given the most ink in each line; all of it if it is too thin."""
    lines = np.flatnonzero(ink > _FAINT_INK)
    if len(lines) < _MIN_CONTENT_LINES:
        return 0.0, float(len(ink))
    first, last = int(lines[0]), int(lines[-1])
    padded = np.pad(ink, 1)
    # The ink in an edge's two lines tells how much of a pixel the content covers there.
    start = first + 1 - min(1.0, float(padded[first + 1] + padded[first]))
    end = last + min(1.0, float(padded[last + 1] + padded[last + 2]))
    return start, end
