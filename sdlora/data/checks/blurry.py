"""Sharpness check: reject images without sharp edges."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from sdlora.data.arrays import ByteArray, DoubleArray
from sdlora.data.checks.base import Check, Picture
from sdlora.data.decoding.stack import Stack

if TYPE_CHECKING:
    from sdlora.data.config import DataConfig

_SIDE_PX = 64
_MIN_FLATNESS = 0.18
_CHANNEL_WEIGHTS = np.array([19595, 38470, 7471], np.float32)  # Pillow's weights of red, green and blue, of 65536


def sharpness(picture: Picture) -> float | None:
    """Edge strength at 64 px on the longer side, 0 (none) to 1.

    The score is 1 - exp(-s / 100), where s is the standard deviation after a Laplacian filter. For pictures of few grey
    levels, the same expression of the histogram's standard deviation is added: flat drawings have few edges but are not
    blurred.

    Source: cleanvision 0.3.7, blurry_score. Unlike there, colours are dropped before the reduction, and large
    pictures are reduced in two steps. This is eight times as fast, and scores differ by less than 0.005.
    """
    return picture.of_pixels(_sharpness)


def _sharpness(stack: Stack) -> DoubleArray:
    greys = _small_greys(stack)
    deviations = zip(_edge_deviations(greys).tolist(), _level_deviations(greys).tolist(), strict=True)
    return np.array([_score(edges, levels) for edges, levels in deviations])


def _score(edge_deviation: float, level_deviation: float) -> float:
    edges = 1 - math.exp(-edge_deviation / 100)
    few_levels = 1 - math.exp(-level_deviation / 100)
    return min(edges + (few_levels if few_levels > _MIN_FLATNESS else 0.0), 1.0)


def _small_greys(stack: Stack) -> ByteArray:
    """Return grey pictures (N, H, W) with a longer side of at most 64 px."""
    ratio = max(stack.size) / _SIDE_PX
    if ratio <= 1:
        # Bit-identical to Pillow: all sums are whole numbers below 2^24.
        red, green, blue = (stack.pixels[..., channel] * _CHANNEL_WEIGHTS[channel] for channel in range(3))
        grey: ByteArray = ((red + green + blue + np.float32(32768)) / np.float32(65536)).astype(np.uint8)
        return grey
    width, height = (max(int(side // ratio), 1) for side in stack.size)
    reduced = [
        image.convert("L").resize((width, height), Image.Resampling.BICUBIC, reducing_gap=4.0) for image in stack.images
    ]
    return np.stack([np.asarray(image) for image in reduced])


def _edge_deviations(greys: ByteArray) -> DoubleArray:
    """Return the standard deviation (N,) after Pillow's FIND_EDGES, which keeps the outermost pixels unchanged."""
    edges = greys.astype(np.int16)
    column_sums = edges[:, :-2] + edges[:, 1:-1] + edges[:, 2:]
    squares = column_sums[:, :, :-2] + column_sums[:, :, 1:-1] + column_sums[:, :, 2:]  # sums over 3x3 pixels
    edges[:, 1:-1, 1:-1] = (9 * edges[:, 1:-1, 1:-1] - squares).clip(0, 255)
    values = edges.reshape(len(edges), -1).astype(np.float64)
    means = values.mean(axis=1)
    deviations: DoubleArray = np.sqrt(np.maximum((values * values).mean(axis=1) - means**2, 0.0))
    return deviations


def _level_deviations(greys: ByteArray) -> DoubleArray:
    """Return the standard deviation (N,) of the counts of grey levels."""
    count = len(greys)
    levels_by_picture = greys.reshape(count, -1) + 256 * np.arange(count)[:, None]
    deviations: DoubleArray = (
        np.bincount(levels_by_picture.ravel(), minlength=256 * count).reshape(count, 256).std(axis=1)
    )
    return deviations


def _rejects(score: float, config: DataConfig) -> str | None:
    if score >= config.blurry_threshold:
        return None
    return f"blurry: sharpness {score:.2f} of 1, less than blurry_threshold = {config.blurry_threshold:g}"


BLURRY = Check("blurry", 1, sharpness, ("blurry_threshold",), _rejects, depends_on_background=True)
