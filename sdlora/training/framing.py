"""How the images of a snapshot were framed for training, for base models that are told so."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sdlora.data import SnapshotRow
from sdlora.data.decode import decode_rgb
from sdlora.models.families.base import Framing
from sdlora.store import ImageStore
from sdlora.training.tensor_cache import TensorCache


def centre_square_framings(rows: Sequence[SnapshotRow], store: ImageStore, side_px: int) -> dict[str, Framing]:
    """By image digest, what `load_images_uint8` does to each image: its centre square, scaled to `side_px`."""
    framings = {}
    for sha256, (height, width) in upright_sizes([row.sha256 for row in rows], store).items():
        scale = side_px / min(height, width)
        crop = (round((height * scale - side_px) / 2), round((width * scale - side_px) / 2))
        framings[sha256] = Framing(original_px=(height, width), crop_px=crop, target_px=(side_px, side_px))
    return framings


def upright_sizes(digests: Sequence[str], store: ImageStore) -> dict[str, tuple[int, int]]:
    """(height, width) of images after EXIF has turned them; each image is decoded once, then remembered.

    Raises:
        DataError: the bytes of an image are missing or damaged.
        StorageError: the cache cannot be written.
    """
    cache = TensorCache(store.home / "cache" / "sizes-v1")
    found = cache.load(digests)
    missing = [digest for digest in digests if digest not in found]
    if missing:
        images = ((digest, decode_rgb(store.read_bytes(digest))) for digest in missing)
        cache.add({digest: torch.tensor([image.height, image.width]) for digest, image in images})
        found = cache.load(digests)
    return {digest: (int(found[digest][0]), int(found[digest][1])) for digest in digests}
