"""How the images of a snapshot are framed for training: to which size each is scaled and cropped.

Aspect-ratio buckets are the few sizes that images of all proportions are brought to, so that little is cropped away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from sdlora.data.decoding.decode import UnreadableError, decode_rgb
from sdlora.models.families.base import Family, Framing
from sdlora.store.image_store import ImageStore
from sdlora.training.inputs.tensor_cache import TensorCache

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
    log_aspect = math.log(image[1] / image[0])
    return min(buckets, key=lambda size: (round(abs(math.log(size[1] / size[0]) - log_aspect), 9), -size[0] * size[1]))


def assign_buckets(sizes: Mapping[str, Size], resolution_px: int, multiple_px: int) -> dict[str, Size]:
    """The bucket of every image, by the keys of `sizes`."""
    buckets = bucket_sizes(resolution_px, multiple_px)
    return {key: nearest_bucket(size, buckets) for key, size in sizes.items()}


def target_sizes(
    digests: Sequence[str], originals: Mapping[str, Size], side_px: int, family: Family, aspect_buckets: bool
) -> dict[str, Size]:
    """By image digest, the size that it is trained at; without buckets the square."""
    if not aspect_buckets:
        return dict.fromkeys(digests, (side_px, side_px))
    return assign_buckets({digest: originals[digest] for digest in digests}, side_px, family.side_multiple_px)


def centre_framing(original: Size, target: Size) -> Framing:
    """What `load_images_uint8` does to an image: scaled to cover the target, then cropped around the centre."""
    (height, width), (target_height, target_width) = original, target
    scale = max(target_height / height, target_width / width)
    crop = (round((height * scale - target_height) / 2), round((width * scale - target_width) / 2))
    return Framing(original_px=original, crop_px=crop, target_px=target)


def upright_sizes(digests: Sequence[str], store: ImageStore) -> tuple[dict[str, Size], dict[str, str]]:
    """(height, width) of images after EXIF has turned them; each image is decoded once, then remembered.

    Returns:
        The sizes by digest, and for images that cannot be read the reason by digest.
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
