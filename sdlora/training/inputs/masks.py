"""Loss masks at the latents' resolution: from the mask file of an image, else from its alpha channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from sdlora.core.errors import DataError
from sdlora.core.tensor_cache import Encode, TensorCache
from sdlora.data.decoding.decode import UnreadableError, decode_alpha
from sdlora.data.decoding.mask import decode_mask
from sdlora.data.snapshot import SnapshotRow
from sdlora.store.image_store import ImageStore
from sdlora.training.inputs.framing import Size

# Names in cache folders: raise the version when the same bytes would give another mask.
_ALPHA = "alpha-v1"
_MASK_FILES = "beside-v1"


def read_masks(
    store: ImageStore, rows: Mapping[str, SnapshotRow], targets: Mapping[str, Size], latent_reduction: int
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the masks of images, scaled and cropped like the images.

    Args:
        store: holds the bytes of images and masks.
        rows: by image digest.
        targets: the training size of each image, by digest.
        latent_reduction: pixels of a side per latent position.
    Returns:
        The masks by image digest, (1, h, w) in [0, 1]: the mean of the row's mask over each latent position, else of
        the alpha channel. An image without either counts everywhere. Then the reasons by image digest for unusable
        masks. Such an image is not trained on: without its mask the adapter would learn the hidden parts.
    Raises:
        UnreadableError: the bytes of an image are damaged.
        StorageError: the cache cannot be written.
    """
    masks: dict[str, Tensor] = {}
    unusable: dict[str, str] = {}
    for size in sorted(set(targets.values())):
        rows_of_size = [rows[digest] for digest, target in targets.items() if target == size]
        reader = _Reader(store, size, latent_reduction)
        masks |= reader.alpha([row.sha256 for row in rows_of_size if not row.mask])
        masks |= reader.mask_files({f"{row.sha256}.{row.mask}": row for row in rows_of_size if row.mask}, unusable)
    return masks, unusable


@dataclass(frozen=True)
class _Reader:
    """Reader of masks at one size, through the cache."""

    store: ImageStore
    size: Size
    latent_reduction: int

    def alpha(self, digests: Sequence[str]) -> dict[str, Tensor]:
        def encode(keys: Sequence[str]) -> dict[str, Tensor]:
            return {key: self._positions(decode_alpha(self.store.read_bytes(key))) for key in keys}

        return self._cached(_ALPHA, digests, encode)

    def mask_files(self, rows: Mapping[str, SnapshotRow], unusable: dict[str, str]) -> dict[str, Tensor]:
        """Return masks by image digest. A cache key names image and mask, so a replaced mask gets another entry."""

        def encode(keys: Sequence[str]) -> dict[str, Tensor]:
            masks = {}
            for key in keys:
                row = rows[key]
                try:
                    masks[key] = self._positions(decode_mask(self.store.read_bytes(row.mask)))
                except (DataError, UnreadableError) as error:
                    unusable[row.sha256] = f"the mask {row.mask[:12]} of image {row.sha256[:12]}: {error}"
            return masks

        return {rows[key].sha256: mask for key, mask in self._cached(_MASK_FILES, list(rows), encode).items()}

    def _cached(self, version: str, keys: Sequence[str], encode: Encode) -> dict[str, Tensor]:
        transform = f"{version}-{self.size[1]}x{self.size[0]}px-over-{self.latent_reduction}"
        cache = TensorCache(self.store.home / "cache" / "masks" / transform)
        return cache.load_or_encode(keys, lambda: encode, device=torch.device("cpu"), stage="read masks")

    def _positions(self, mask: Image.Image | None) -> Tensor:
        height, width = self.size[0] // self.latent_reduction, self.size[1] // self.latent_reduction
        if mask is None:
            return torch.ones(1, height, width)
        fitted = ImageOps.fit(mask, (self.size[1], self.size[0]), Image.Resampling.LANCZOS)
        small = fitted.resize((width, height), Image.Resampling.BOX)  # mean over the pixels of each latent position
        return torch.from_numpy(np.array(small, dtype=np.float32) / 255)[None]


def mask_weights(masks: Sequence[Tensor], least: float) -> Tensor:
    """Scale masks to weights from `least` to 1, then to a mean of 1 per image: (B, 1, h, w).

    With equal means, an image with a small subject counts as much as any other.
    """
    weights = least + (1 - least) * torch.stack(list(masks))
    means = weights.mean((1, 2, 3), keepdim=True)
    return torch.where(means > 0, weights / means.clamp(min=1e-6), torch.ones_like(weights))
