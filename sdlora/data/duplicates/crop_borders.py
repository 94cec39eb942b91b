"""Content box of an image, without caption bars and plain borders.

Works on many images of one size, (N, H, W, 3). The results for one image do not depend on its neighbours.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sdlora.data.arrays import BoolArray, ByteArray, FloatArray, IntArray

_MIN_INK_SHARE = 0.25
_MIN_CONTENT_LINES = 4
_BAR_SHARE_RANGE = (0.04, 0.3)  # of the height
_SAME_COLOUR_LEVELS = 32  # grey levels
_PLAIN_BORDER_LEVELS = 12
_PLAIN_SHARE = 0.95  # share of a row of the bar, outside the text, that has its colour
_BAR_COLOUR_SHARE = 0.4  # share of the bar that has its colour, text included

Colours = npt.NDArray[np.int16]
_Number = TypeVar("_Number", np.uint8, np.int16)


def without_bars(pixels: ByteArray) -> IntArray:
    """Find the rows (N, 2), from and to, between the caption bars of each image, or all rows without bars.

    A bar is a strip over the full width, at the top or the bottom, with or without text. It has one colour, which the
    image's border does not have.
    """
    return np.stack([_bar_rows(pixels[:, ::-1]), pixels.shape[1] - _bar_rows(pixels)], axis=1)


def content_boxes(pixels: ByteArray) -> FloatArray:
    """Find the box (N, 4) of each image without its plain border: left, top, right, bottom.

    Photographs mostly have no border. Edges are fractions of a pixel, because on small images one whole pixel moves and
    scales all of the content.
    """
    count, height, width, _ = pixels.shape
    border = np.concatenate([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], axis=1)
    usual = _medians(border)
    lines = pixels.reshape(count, height, width * 3)
    # Ink: the largest distance in any channel from the median colour of the border.
    colour = np.tile(usual.astype(np.uint8), width)[:, None]  # (N, 1, W * 3)
    ink = np.maximum(lines, colour) - np.minimum(lines, colour)
    by_column = _largest_channel(ink.max(axis=1).reshape(count, width, 3))
    by_row = ink.max(axis=2)
    left, right = _content_spans(by_column)
    top, bottom = _content_spans(by_row)
    boxes = np.stack([left, top, right, bottom], axis=1)
    framed = _has_colour(border, usual, _PLAIN_BORDER_LEVELS).mean(axis=1) >= 0.4
    return np.where(framed[:, None], boxes, np.array([0, 0, width, height], np.float32))


def _bar_rows(pixels: ByteArray) -> IntArray:
    """Return the height (N,) of the bar at the bottom of each image, 0 without a bar."""
    count, height = pixels.shape[:2]
    lowest, highest = round(_BAR_SHARE_RANGE[0] * height), round(_BAR_SHARE_RANGE[1] * height)
    bar_heights = np.zeros(count, np.int64)
    if lowest < 2:  # rows: not distinguishable from a border
        return bar_heights
    colours = _medians(pixels[:, -1])
    plain = np.flatnonzero(_has_colour(pixels[:, -1], colours, _SAME_COLOUR_LEVELS).mean(axis=1) >= _PLAIN_SHARE)
    sides = pixels[plain, : height - highest][:, :, [0, -1]].reshape(len(plain), 2 * (height - highest), 3)
    continues = _has_colour(sides, colours[plain], _SAME_COLOUR_LEVELS).mean(axis=1) > 0.5  # the border, up the sides
    for index in plain[~continues]:
        strip = pixels[index, height - highest - 1 :]
        bar_heights[index] = _rows_of_bar(strip, np.broadcast_to(colours[index], (len(strip), 3)), lowest)
    return bar_heights


def _rows_of_bar(strip: ByteArray, colour: Colours, lowest: int) -> int:
    share = _has_colour(strip, colour, _SAME_COLOUR_LEVELS).mean(axis=1)  # per row
    for start in range(1, len(strip) - max(lowest, 3) + 1):
        # The bar begins with a plain row below a clearly different row.
        if share[start] >= _PLAIN_SHARE and share[start - 1] < 0.6 and share[start:].mean() >= _BAR_COLOUR_SHARE:
            return len(strip) - start
    return 0


def _medians(colours: ByteArray) -> Colours:
    """Return median colours (N, 3) of (N, M, 3); the upper median for an even M."""
    # As contiguous 16-bit numbers, because numpy sorts 8-bit numbers without vector instructions.
    ordered = np.sort(np.ascontiguousarray(colours.transpose(0, 2, 1), dtype=np.int16), axis=2)
    middle: Colours = ordered[..., colours.shape[1] // 2]
    return middle


def _has_colour(colours: ByteArray, target: Colours, within: int) -> BoolArray:
    """Return (N, M) whether colours (N, M, 3) are within so many grey levels of the target (N, 3)."""
    near: BoolArray = _largest_channel(np.abs(colours - target[:, None])) <= within
    return near


def _largest_channel(values: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    """Reduce (..., 3) to (...) by maximum; numpy's own takes several times as long on so short an axis."""
    largest: npt.NDArray[_Number] = np.maximum(np.maximum(values[..., 0], values[..., 1]), values[..., 2])
    return largest


def _content_spans(ink: ByteArray) -> tuple[FloatArray, FloatArray]:
    """Find start and end (N,) of the content along one axis from the most ink of each line (N, L).

    The span is the whole axis if the content is too thin.
    """
    count, length = ink.shape
    share = ink / np.maximum(ink.max(axis=1, keepdims=True), 1).astype(np.float32)
    inked = share > _MIN_INK_SHARE
    first_line, last_line = inked.argmax(axis=1), length - 1 - inked[:, ::-1].argmax(axis=1)
    padded = np.pad(share, ((0, 0), (1, 1)))
    image_indices = np.arange(count)
    # The ink in the two lines of an edge is the share of a pixel that the content covers there.
    start = first_line + 1 - np.minimum(1, padded[image_indices, first_line + 1] + padded[image_indices, first_line])
    end = last_line + np.minimum(1, padded[image_indices, last_line + 1] + padded[image_indices, last_line + 2])
    thin = inked.sum(axis=1) < _MIN_CONTENT_LINES
    return np.where(thin, 0, start).astype(np.float32), np.where(thin, length, end).astype(np.float32)
