"""Latents of a snapshot's images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import psutil
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from sdlora.core.errors import DataError, TrainingError
from sdlora.core.progress import OnProgress
from sdlora.core.refs import BaseModelRef
from sdlora.data.pixels import load_images_uint8
from sdlora.data.snapshot import SnapshotRow
from sdlora.models import parts
from sdlora.models.encode import encode_images
from sdlora.models.families.base import free
from sdlora.models.files.digests import DigestCache, folder_digest
from sdlora.store.image_store import ImageStore
from sdlora.training.inputs.framing import Size
from sdlora.training.inputs.tensor_cache import ONLY, Encode, TensorCache, look_up

_TRANSFORM = "centre-crop-v3"  # raised when load_images_uint8, encode_images or its batches change the results
# On a CPU few images at once stay in its caches (8 of 64 px: a fifth less time than 32) and need less memory.
_PIXELS_AT_ONCE = {"cpu": 8 * 64**2}
_PIXELS_AT_ONCE_ELSEWHERE = 16 * 512**2
# Encoding holds this many times the largest activation (embedded autoencoder, 512 to 2048 px: 4.4 to 4.8).
_LEVELS_HELD = 5


class ImageEncoder:
    """Latents of a snapshot's images, from the cache or from the autoencoder, which is loaded when first needed."""

    def __init__(
        self,
        base: BaseModelRef,
        store: ImageStore,
        rows: Mapping[str, SnapshotRow],
        device: torch.device,
        on_progress: OnProgress | None,
    ) -> None:
        self.base, self.store, self.rows, self.device, self.on_progress = base, store, rows, device, on_progress
        self.maker = folder_digest(base.folder / "vae", DigestCache.of_home(store.home))[:16]
        self.unreadable: dict[str, str] = {}
        """By digest, why an image could not be decoded: one bad image costs one image, not the run."""
        self._autoencoder: AutoencoderKL | None = None

    def latents(self, targets: Mapping[str, Size], mirror: bool = False) -> dict[str, Tensor]:
        """By digest, (C, h, w) of every image that can be read, scaled and cropped to its target."""
        found: dict[str, Tensor] = {}
        for size in sorted(set(targets.values())):
            digests = [digest for digest, target in targets.items() if target == size]
            found |= self._of_size(digests, size, mirror)
        return found

    def close(self) -> None:
        """Give the autoencoder's memory back."""
        self._autoencoder = None
        free(self.device)

    def _of_size(self, digests: Sequence[str], size: Size, mirror: bool) -> dict[str, Tensor]:
        # An image on another background is another picture, so such images have folders of their own.
        backgrounds = sorted({self.rows[digest].background or "" for digest in digests})
        found: dict[str, Tensor] = {}
        for background in backgrounds:
            ours = [digest for digest in digests if (self.rows[digest].background or "") == background]
            transform = f"{_TRANSFORM}-{size[1]}x{size[0]}px" + ("-mirrored" if mirror else "")
            transform += f"-on-{background.lstrip('#')}" if background else ""
            cache = TensorCache(self.store.home / "cache" / "latents" / f"{self.maker}-{transform}")
            entries = look_up(
                cache, ours, lambda: self._encode(size, mirror), self.on_progress, "encode images", self.device
            )
            found |= {digest: tensors[ONLY] for digest, tensors in entries.items()}
        return found

    def _encode(self, size: Size, mirror: bool) -> Encode:
        self._autoencoder = self._autoencoder or parts.load_autoencoder(self.base, self.device)
        autoencoder = self._autoencoder
        at_once = max(1, _PIXELS_AT_ONCE.get(self.device.type, _PIXELS_AT_ONCE_ELSEWHERE) // (size[0] * size[1]))

        def encode(digests: Sequence[str]) -> dict[str, dict[str, Tensor]]:
            _require_room(autoencoder, size, len(digests), at_once)
            images = {digest: image for digest in digests if (image := self._read(digest, size)) is not None}
            if not images:
                return {}
            pixels = torch.stack(list(images.values()))
            latents = _encode_alike(autoencoder, pixels.flip(-1) if mirror else pixels, at_once)
            return {digest: {ONLY: each} for digest, each in zip(images, latents, strict=True)}

        return encode

    def _read(self, digest: str, size: Size) -> Tensor | None:
        try:
            return load_images_uint8(self.store, [self.rows[digest]], *size)[0]
        except DataError as error:
            self.unreadable[digest] = str(error)
            return None


def _encode_alike(autoencoder: AutoencoderKL, pixels: Tensor, at_once: int) -> Tensor:
    """Latents by batches that are all of one size: the last one is filled up.

    So an image's latents are the same to the bit whoever arrived with it, and a CPU needs the kernels of one shape.
    """
    missing = -len(pixels) % at_once
    filled = torch.cat((pixels, pixels[-1:].expand(missing, *pixels.shape[1:])))
    return encode_images(autoencoder, filled, at_once)[: len(pixels)]


def _require_room(autoencoder: AutoencoderKL, size: Size, count: int, at_once: int) -> None:
    """Check that images of this size can be held and encoded in the machine's memory; a GPU's own is its library's.

    Raises:
        TrainingError: they cannot; a system out of memory would end the process without a word.
    """
    of_pixels = 2 * 3 * size[0] * size[1] * count  # one by one, and stacked
    first_level = 4 * autoencoder.config.block_out_channels[0] * size[0] * size[1]  # fp32
    of_encoding = _LEVELS_HELD * first_level * at_once if autoencoder.device.type == "cpu" else 0
    needed, free = of_pixels + of_encoding, psutil.virtual_memory().available
    if needed > free:
        raise TrainingError(
            f"training.resolutions: encoding images of {size[1]} x {size[0]} px needs about {needed / 2**30:.1f} GiB "
            f"of memory, free are {free / 2**30:.1f} GiB. Set smaller training.resolutions."
        )
