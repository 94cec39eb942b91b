"""Framing for training: the size that each image is scaled and cropped to.

Aspect-ratio buckets are a few sizes for images of all proportions, so that little is cropped away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from sdlora.core.tensor_cache import TensorCache
from sdlora.data.decoding.decode import UnreadableError, decode_rgb
from sdlora.models.families.base import Family, Framing
from sdlora.store.image_store import ImageStore

Size = tuple[int, int]
"""(height, width) in pixels."""

MAX_ASPECT = 2.0
"""Longest ratio of the sides; longer images are cropped, because few networks were trained on them."""


def bucket_sizes(resolution_px: int, multiple_px: int) -> tuple[Size, ...]:
    """List the sizes of at most `resolution_px` squared pixels whose sides are multiples of `multiple_px`.

    Each width has one size, as high as the area allows, with sides of at most 2 to 1. The square is always included.
    """
    area, sizes = resolution_px**2, set()
    for width in range(multiple_px, int(resolution_px * math.sqrt(MAX_ASPECT)) + 1, multiple_px):
        height = area // width // multiple_px * multiple_px
        if height and max(height, width) <= MAX_ASPECT * min(height, width):
            sizes |= {(height, width), (width, height)}
    square = max(multiple_px, resolution_px // multiple_px * multiple_px)
    return tuple(sorted(sizes | {(square, square)}))


def nearest_bucket(image: Size, buckets: Sequence[Size]) -> Size:
    """Return the bucket of the nearest proportions; of several, the largest."""
    log_aspect = math.log(image[1] / image[0])
    return min(buckets, key=lambda size: (round(abs(math.log(size[1] / size[0]) - log_aspect), 9), -size[0] * size[1]))


def assign_buckets(sizes: Mapping[str, Size], resolution_px: int, multiple_px: int) -> dict[str, Size]:
    """Assign the nearest bucket to every image, by the keys of `sizes`."""
    buckets = bucket_sizes(resolution_px, multiple_px)
    return {key: nearest_bucket(size, buckets) for key, size in sizes.items()}


def target_sizes(
    digests: Sequence[str], originals: Mapping[str, Size], side_px: int, family: Family, aspect_buckets: bool
) -> dict[str, Size]:
    """Return the training size of every image by digest; without buckets the square."""
    if not aspect_buckets:
        return dict.fromkeys(digests, (side_px, side_px))
    return assign_buckets({digest: originals[digest] for digest in digests}, side_px, family.side_multiple_px)


def centre_framing(original: Size, target: Size) -> Framing:
    """Compute the framing by `load_images_uint8`: scale the image to cover the target, then crop around the centre."""
    (height, width), (target_height, target_width) = original, target
    scale = max(target_height / height, target_width / width)
    crop = (round((height * scale - target_height) / 2), round((width * scale - target_width) / 2))
    return Framing(original_px=original, crop_px=crop, target_px=target)


def upright_sizes(digests: Sequence[str], store: ImageStore) -> tuple[dict[str, Size], dict[str, str]]:
    """Measure (height, width) of images after the EXIF rotation; each image is decoded once, then cached.

    Returns:
        The sizes by digest, and the reasons by digest for images that cannot be read.
    Raises:
        StorageError: the cache cannot be written.
    """
    cache = TensorCache(store.home / "cache" / "sizes-v1")
    cached_sizes = cache.load(digests)
    new_sizes, unreadable = {}, {}
    for digest in digests:
        if digest in cached_sizes:
            continue
        try:
            image = decode_rgb(store.read_bytes(digest))
            new_sizes[digest] = torch.tensor([image.height, image.width])
        except UnreadableError as error:
            unreadable[digest] = str(error)
    if new_sizes:
        cache.add(new_sizes)
    sizes = cached_sizes | new_sizes
    return {digest: (int(size[0]), int(size[1])) for digest, size in sizes.items()}, unreadable
