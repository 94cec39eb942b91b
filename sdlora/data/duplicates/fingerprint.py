"""Fingerprint of an image: four hashes for the search, and a thumbnail for the comparison."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from sdlora.data.arrays import ByteArray, FloatArray, HashArray
from sdlora.data.decoding.stack import Stack
from sdlora.data.duplicates.crop_borders import content_boxes, without_bars

VERSION = 5
"""Version of fingerprints. Raise it when the same pixels would get another fingerprint or difference."""

THUMBNAIL_SIDE_PX = 32
_WORKING_SIDE_PX = 256
_SOFTNESS_CELLS = 0.8  # thumbnail pixels: hides resampling and half a pixel of movement, but not a different mouth
_LANCZOS_LOBES = 3
_MULTIPLICATIONS_PER_PRODUCT = 1 << 18  # larger matrix products start threads of BLAS
_MIN_BELL_PX = 0.5  # a narrower bell would show single pixels where an axis is enlarged
_CHANNEL_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue

Span = tuple[float, float]
Part = tuple[Span, Span]
"""Horizontal and vertical span, as shares of width and height."""

_ALL: Part = ((0.0, 1.0), (0.0, 1.0))
_INNER: Part = ((0.05, 0.95), (0.05, 0.95))
_UPPER: Part = ((0.0, 1.0), (0.0, 0.88))

HASH_COUNT = 4
HASH_DISTANCE = 10
"""Largest Hamming distance, of 64 bits, of pairs that are compared further."""

SEARCHES = ((0, 0), (1, 1), (0, 2), (2, 0), (1, 3), (3, 1))
"""Pairs of hashes that are compared, as positions in `Fingerprint.hashes` of either image."""


@dataclass(frozen=True)
class Fingerprint:
    """Fingerprint of one image.

    Attributes:
        hashes: four unsigned 64-bit difference hashes. In order: the content, the whole image, the upper part of the
            content (visible above a caption bar), the inner part of the image (visible after cropping).
        aspect: width / height of the content.
        thumbnail: 32x32 RGB bytes of the content.
    """

    hashes: tuple[int, ...]
    aspect: float
    thumbnail: bytes


def fingerprint(image: Image.Image) -> Fingerprint:
    """Compute the fingerprint of an RGB image."""
    return fingerprints(Stack([image]))[0]


def fingerprints(stack: Stack) -> list[Fingerprint]:
    """Compute the fingerprint of each image. It does not depend on the rest of the stack, to the bit."""
    factor = max(1, max(stack.size) // _WORKING_SIDE_PX)
    if factor > 1:
        stack = Stack([image.reduce(factor) for image in stack.images])
    rows = [tuple(span) for span in without_bars(stack.pixels).tolist()]
    by_position: dict[int, Fingerprint] = {}
    for top, bottom in dict.fromkeys(rows):
        positions = [position for position, span in enumerate(rows) if span == (top, bottom)]
        pixels = stack.pixels if len(positions) == len(rows) else stack.pixels[positions]
        # Cut off here, because shrinking a span reads a little beyond the span.
        by_position.update(zip(positions, _fingerprints_of(pixels[:, top:bottom]), strict=True))
    return [by_position[position] for position in range(len(rows))]


def _fingerprints_of(pixels: ByteArray) -> list[Fingerprint]:
    """Compute the fingerprints of images (N, H, W, 3) without caption bars."""
    left, top, right, bottom = content_boxes(pixels).T
    values = pixels.astype(np.float32)
    thumbnails = _thumbnails(values, np.stack([left, right]), np.stack([top, bottom]))
    hashes = np.concatenate(
        [_difference_hashes(thumbnails.astype(np.float32), _ALL, _UPPER), _difference_hashes(values, _ALL, _INNER)]
    )
    content, upper, whole, inner = hashes.tolist()
    aspects = ((right - left) / (bottom - top)).tolist()
    return [
        Fingerprint(hashes, aspect, thumbnail.tobytes())
        for hashes, aspect, thumbnail in zip(
            zip(content, whole, upper, inner, strict=True), aspects, thumbnails, strict=True
        )
    ]


def _thumbnails(values: FloatArray, horizontal: FloatArray, vertical: FloatArray) -> ByteArray:
    """Compute thumbnails (N, 32, 32, 3) of the spans (2, N) of images (N, H, W, 3)."""
    count, height, width, _ = values.shape
    side = THUMBNAIL_SIDE_PX
    down = _gaussian_weights(height, vertical, side, _SOFTNESS_CELLS)
    across = _gaussian_weights(width, horizontal, side, _SOFTNESS_CELLS)
    # One matrix product per image, so that its sums do not depend on the number of images.
    lines = _product(down, values.reshape(count, height, width * 3)).reshape(count, side, width, 3)
    columns = lines.transpose(0, 2, 1, 3).reshape(count, width, side * 3)
    cells = np.rint(_product(across, columns)).astype(np.uint8)  # (N, 32 across, 32 down * 3)
    return np.ascontiguousarray(cells.reshape(count, side, side, 3).transpose(0, 2, 1, 3))


def _difference_hashes(values: FloatArray, *parts: Part) -> HashArray:
    """Compute difference hashes (parts, N) of images (N, H, W, 3), as imagehash.dhash does.

    Each bit states whether a cell of a grid of 8 x 9 is brighter than its left neighbour.
    """
    count, height, width, _ = values.shape
    rows = np.concatenate([_lanczos_weights(height, *down, cells=8) for _, down in parts])  # (parts * 8, H)
    columns = np.concatenate([_lanczos_weights(width, *across, cells=9) for across, _ in parts])
    # One product for both parts, with unused mixed quarters: reading the pixels twice takes longer.
    lines = _product(rows, values.reshape(count, height, width * 3))
    cells = _product(lines, np.kron(columns, _CHANNEL_WEIGHTS).T)
    hashes = []
    for number in range(len(parts)):
        levels = np.rint(cells[:, 8 * number : 8 * number + 8, 9 * number : 9 * number + 9])  # of grey
        bits = levels[..., 1:] > levels[..., :-1]
        hashes.append(np.packbits(bits.reshape(count, 64), axis=1).view(">u8")[:, 0])
    return np.stack(hashes).astype(np.uint64)


def _gaussian_weights(side: int, spans: FloatArray, cells: int, softness: float) -> FloatArray:
    """Compute weights (N, cells, side) that sample each span with Gaussian bells.

    Args:
        side: pixels of the axis.
        spans: (2, N) low and high ends, in pixels.
        softness: standard deviation of a bell, in cells.
    """
    low, high = spans
    size = (high - low) / cells  # of a cell, in pixels
    centres = low[:, None] + size[:, None] * (np.arange(cells, dtype=np.float32) + np.float32(0.5))  # (N, cells)
    width = np.maximum(np.float32(softness) * size, np.float32(_MIN_BELL_PX))[:, None, None]
    distance = (np.arange(side, dtype=np.float32) + np.float32(0.5) - centres[..., None]) / width
    # Not below e^-20: subnormal numbers make the following products ten times as slow.
    weights: FloatArray = np.exp(np.maximum(distance * distance * np.float32(-0.5), np.float32(-20)))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


@lru_cache(maxsize=256)
def _lanczos_weights(side: int, low: float, high: float, cells: int) -> FloatArray:
    """Compute weights (cells, side) of Pillow's LANCZOS for one span, `low` to `high` as shares of the axis."""
    size = (high - low) * side / cells
    centres = low * side + size * (np.arange(cells) + 0.5)
    reach = max(size, 1.0)
    distance = (np.arange(side) + 0.5 - centres[:, None]) / reach
    weights = np.where(np.abs(distance) < _LANCZOS_LOBES, np.sinc(distance) * np.sinc(distance / _LANCZOS_LOBES), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype(np.float32)


def _product(left: FloatArray, right: FloatArray) -> FloatArray:
    """Compute left @ right, (..., A, B) and (..., B, C), in products too small for BLAS to start threads.

    BLAS threads wait for each other longer than such small work takes, and each core may have a worker already.
    """
    step = max(1, _MULTIPLICATIONS_PER_PRODUCT // (left.shape[-2] * left.shape[-1]))
    starts = range(0, right.shape[-1], step)
    parts: list[FloatArray] = [left @ right[..., start : start + step] for start in starts]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
