"""Which parts of an image count in the loss: its alpha channel, at the latents' resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from sdlora.data.decoding.decode import decode_alpha
from sdlora.store import ImageStore
from sdlora.training.buckets import Size
from sdlora.training.lookup import ONLY, Encode, look_up
from sdlora.training.tensor_cache import TensorCache

_VERSION = "alpha-v1"


def alpha_masks(store: ImageStore, targets: Mapping[str, Size], latent_reduction: int) -> dict[str, Tensor]:
    """By digest, (1, h, w) in [0, 1]: how opaque the image is around each latent position.

    Scaled and cropped as the image itself; an image without transparency is opaque everywhere.

    Raises:
        UnreadableError: the bytes of an image are damaged.
        StorageError: the cache cannot be written.
    """
    masks: dict[str, Tensor] = {}
    for size in sorted(set(targets.values())):
        digests = [digest for digest, target in targets.items() if target == size]
        transform = f"{_VERSION}-{size[1]}x{size[0]}px-over-{latent_reduction}"
        cache = TensorCache(store.home / "cache" / "masks" / transform)

        def encoder(size: Size = size) -> Encode:
            return lambda keys: {key: {ONLY: _mask(store.read_bytes(key), size, latent_reduction)} for key in keys}

        found = look_up(cache, digests, encoder, None, "read masks", torch.device("cpu"))
        masks |= {digest: tensors[ONLY] for digest, tensors in found.items()}
    return masks


def mask_weights(masks: Sequence[Tensor], least: float) -> Tensor:
    """(B, 1, h, w) weights between `least`, where an image is transparent, and 1, brought to a mean of 1 per image.

    The mean, so that an image with a small subject counts as much as any other.
    """
    weights = least + (1 - least) * torch.stack(list(masks))
    means = weights.mean((1, 2, 3), keepdim=True)
    return torch.where(means > 0, weights / means.clamp(min=1e-6), torch.ones_like(weights))


def _mask(content: bytes, size: Size, latent_reduction: int) -> Tensor:
    height, width = size[0] // latent_reduction, size[1] // latent_reduction
    alpha = decode_alpha(content)
    if alpha is None:
        return torch.ones(1, height, width)
    fitted = ImageOps.fit(alpha, (size[1], size[0]), Image.Resampling.LANCZOS)
    small = fitted.resize((width, height), Image.Resampling.BOX)  # the mean over each latent position's pixels
    return torch.from_numpy(np.array(small, dtype=np.float32) / 255)[None]
