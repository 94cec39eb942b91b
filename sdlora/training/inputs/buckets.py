"""Aspect-ratio buckets: the few sizes that images of all proportions are brought to, so that little is cropped away."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

Size = tuple[int, int]
"""(height, width) in pixels."""

MAX_ASPECT = 2.0
"""Longer images are cropped to this ratio of the sides; few networks have seen more."""


def bucket_sizes(resolution_px: int, multiple_px: int) -> tuple[Size, ...]:
    """All sizes of at most `resolution_px` squared pixels whose sides are multiples of `multiple_px`.

    One per width, each as high as the area allows, with sides of at most 2 to 1; the square is always among them.
    """
    area, sizes = resolution_px**2, set()
    for width in range(multiple_px, int(resolution_px * math.sqrt(MAX_ASPECT)) + 1, multiple_px):
        height = area // width // multiple_px * multiple_px
        if height and max(height, width) <= MAX_ASPECT * min(height, width):
            sizes |= {(height, width), (width, height)}
    square = max(multiple_px, resolution_px // multiple_px * multiple_px)
    return tuple(sorted(sizes | {(square, square)}))


def nearest_bucket(image: Size, buckets: Sequence[Size]) -> Size:
    """The bucket of the most similar proportions; among equals the largest."""
    wanted = math.log(image[1] / image[0])
    return min(buckets, key=lambda size: (round(abs(math.log(size[1] / size[0]) - wanted), 9), -size[0] * size[1]))


def assign_buckets(sizes: Mapping[str, Size], resolution_px: int, multiple_px: int) -> dict[str, Size]:
    """The bucket of every image, by the keys of `sizes`."""
    buckets = bucket_sizes(resolution_px, multiple_px)
    return {key: nearest_bucket(size, buckets) for key, size in sizes.items()}
