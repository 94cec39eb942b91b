"""Loading of snapshot images as tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from sdlora.core.errors import DataError
from sdlora.data.decoding.decode import UnreadableError, decode_rgb
from sdlora.data.snapshot import SnapshotRow
from sdlora.store.image_store import ImageStore


def load_images_uint8(
    store: ImageStore, rows: Sequence[SnapshotRow], side_px: int, width_px: int | None = None
) -> Tensor:
    """Load images in the order of the rows: upright, on their background, scaled to cover the size, centre-cropped.

    Args:
        store: image store that holds the bytes.
        rows: snapshot rows of the images.
        side_px: height of the result, H.
        width_px: width of the result, W; equal to the height if None.

    Returns:
        (N, 3, H, W) uint8 in [0, 255].
    Raises:
        DataError: the bytes of an image are missing or damaged.
    """
    width_px = width_px or side_px
    images = torch.empty((len(rows), 3, side_px, width_px), dtype=torch.uint8)
    for index, row in enumerate(rows):
        try:
            rgb = decode_rgb(store.read_bytes(row.sha256), row.background or "white")
        except UnreadableError as error:
            raise DataError(f"Image {row.sha256} cannot be decoded: {error}. Clean the images again.") from error
        fitted = ImageOps.fit(rgb, (width_px, side_px), Image.Resampling.LANCZOS)
        images[index] = torch.from_numpy(np.array(fitted)).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)
    return images
