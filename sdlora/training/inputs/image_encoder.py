"""Latents of a snapshot's images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import psutil
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from sdlora.core.devices import empty_device_cache
from sdlora.core.errors import DataError, TrainingError
from sdlora.core.progress import OnProgress
from sdlora.core.refs import BaseModelRef
from sdlora.core.tensor_cache import Encode, TensorCache
from sdlora.data.pixels import load_images_uint8
from sdlora.data.snapshot import SnapshotRow
from sdlora.models import parts
from sdlora.models.encode import encode_images
from sdlora.models.files.digests import DigestCache, folder_digest
from sdlora.store.image_store import ImageStore
from sdlora.training.inputs.framing import Size

_TRANSFORM = "centre-crop-v3"  # raise when load_images_uint8, encode_images or the batch size change the results
# Small batches stay in the caches of a CPU (8 of 64 px: a fifth less time than 32) and need less memory.
_PIXELS_PER_BATCH = {"cpu": 8 * 64**2}
_GPU_PIXELS_PER_BATCH = 16 * 512**2
# Peak memory of encoding over the largest activation (embedded autoencoder, 512 to 2048 px: 4.4 to 4.8).
_ACTIVATIONS_HELD = 5


class ImageEncoder:
    """Encoder of a snapshot's images: latents from the cache, or from the autoencoder, loaded on first use."""

    def __init__(
        self,
        base: BaseModelRef,
        store: ImageStore,
        rows: Mapping[str, SnapshotRow],
        device: torch.device,
        on_progress: OnProgress | None,
    ) -> None:
        self.base, self.store, self.rows, self.device, self.on_progress = base, store, rows, device, on_progress
        self.encoder_digest = folder_digest(base.folder / "vae", DigestCache.of_home(store.home))[:16]
        self.unreadable: dict[str, str] = {}
        """Reasons by digest of images that cannot be decoded; a bad image is skipped and the run continues."""
        self._autoencoder: AutoencoderKL | None = None

    def latents(self, targets: Mapping[str, Size], mirror: bool = False) -> dict[str, Tensor]:
        """Return (C, h, w) latents by digest of every readable image, scaled and cropped to its target."""
        latents: dict[str, Tensor] = {}
        for size in sorted(set(targets.values())):
            digests = [digest for digest, target in targets.items() if target == size]
            latents |= self._latents_of_size(digests, size, mirror)
        return latents

    def close(self) -> None:
        """Free the autoencoder's memory."""
        self._autoencoder = None
        empty_device_cache(self.device)

    def _latents_of_size(self, digests: Sequence[str], size: Size, mirror: bool) -> dict[str, Tensor]:
        # Another background gives other pixels, so each background has a cache folder of its own.
        backgrounds = sorted({self.rows[digest].background or "" for digest in digests})
        latents: dict[str, Tensor] = {}
        for background in backgrounds:
            with_background = [digest for digest in digests if (self.rows[digest].background or "") == background]
            transform = f"{_TRANSFORM}-{size[1]}x{size[0]}px" + ("-mirrored" if mirror else "")
            transform += f"-on-{background.lstrip('#')}" if background else ""
            cache = TensorCache(self.store.home / "cache" / "latents" / f"{self.encoder_digest}-{transform}")
            latents |= cache.load_or_encode(
                with_background,
                lambda: self._encoder(size, mirror),
                device=self.device,
                stage="encode images",
                on_progress=self.on_progress,
            )
        return latents

    def _encoder(self, size: Size, mirror: bool) -> Encode:
        self._autoencoder = self._autoencoder or parts.load_autoencoder(self.base, self.device)
        autoencoder = self._autoencoder
        batch_size = max(1, _PIXELS_PER_BATCH.get(self.device.type, _GPU_PIXELS_PER_BATCH) // (size[0] * size[1]))

        def encode(digests: Sequence[str]) -> dict[str, Tensor]:
            _require_memory(autoencoder, size, len(digests), batch_size)
            images = {digest: image for digest in digests if (image := self._read(digest, size)) is not None}
            if not images:
                return {}
            pixels = torch.stack(list(images.values()))
            latents = _encode_padded(autoencoder, pixels.flip(-1) if mirror else pixels, batch_size)
            return dict(zip(images, latents, strict=True))

        return encode

    def _read(self, digest: str, size: Size) -> Tensor | None:
        try:
            return load_images_uint8(self.store, [self.rows[digest]], *size)[0]
        except DataError as error:
            self.unreadable[digest] = str(error)
            return None


def _encode_padded(autoencoder: AutoencoderKL, pixels: Tensor, batch_size: int) -> Tensor:
    """Encode in batches of one size; the last batch is padded.

    So an image's latents have the same bits in any batch, and a CPU needs the kernels of one shape.
    """
    pad_count = -len(pixels) % batch_size
    padded = torch.cat((pixels, pixels[-1:].expand(pad_count, *pixels.shape[1:])))
    return encode_images(autoencoder, padded, batch_size)[: len(pixels)]


def _require_memory(autoencoder: AutoencoderKL, size: Size, count: int, batch_size: int) -> None:
    """Check that images of this size fit into the machine's memory; CUDA checks the memory of a GPU.

    Raises:
        TrainingError: the images do not fit; a system out of memory would kill the process without a message.
    """
    pixel_bytes = 2 * 3 * size[0] * size[1] * count  # single images and the stacked batch
    activation_bytes = 4 * autoencoder.config.block_out_channels[0] * size[0] * size[1]  # fp32
    encoding_bytes = _ACTIVATIONS_HELD * activation_bytes * batch_size if autoencoder.device.type == "cpu" else 0
    needed_bytes, free_bytes = pixel_bytes + encoding_bytes, psutil.virtual_memory().available
    if needed_bytes > free_bytes:
        raise TrainingError(
            f"training.resolutions: encoding images of {size[1]} x {size[0]} px needs about "
            f"{needed_bytes / 2**30:.1f} GiB of memory, free are {free_bytes / 2**30:.1f} GiB. "
            "Set smaller training.resolutions."
        )
