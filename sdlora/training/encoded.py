"""A snapshot as the network sees it: latents and caption embeddings, each computed once and kept on disk.

A cache folder is named by what made its entries (encoder digest, transform), an entry by what it was made from
(image digest, caption). So a changed image, caption, encoder or size is never mistaken for a known one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdlora.artifacts import BaseModelRef
from sdlora.data import SnapshotRow, load_images_uint8
from sdlora.models import parts
from sdlora.models.digests import DigestCache, folder_digest
from sdlora.models.encode import encode_images, encode_prompts
from sdlora.progress import OnProgress
from sdlora.store import ImageStore
from sdlora.training.tensor_cache import TensorCache

_IMAGE_TRANSFORM = "centre-square-v1"  # raised when load_images_uint8 or encode_images change their results
_CHUNK = 64


@dataclass(frozen=True)
class EncodedRows:
    """Rows of a snapshot with their tensors.

    Attributes:
        rows: the snapshot's rows, in its order.
        latents: by image digest, (C, h, w) each.
        mirrored: the same of the mirrored images; empty when not asked for.
        embeddings: by caption, (T, D) each; always holds the empty caption.
    """

    rows: tuple[SnapshotRow, ...]
    latents: dict[str, Tensor]
    mirrored: dict[str, Tensor]
    embeddings: dict[str, Tensor]


def encode_rows(
    base: BaseModelRef,
    rows: Sequence[SnapshotRow],
    store: ImageStore,
    side_px: int,
    *,
    mirror: bool = False,
    device: torch.device,
    on_progress: OnProgress | None = None,
) -> EncodedRows:
    """Look up or compute all tensors of `rows`; the encoders are loaded only if something is missing.

    Raises:
        StorageError: the cache cannot be written.
        WeightsError: an encoder is damaged.
    """
    latents = _cached_latents(base, rows, store, side_px, False, device, on_progress)
    mirrored = _cached_latents(base, rows, store, side_px, True, device, on_progress) if mirror else {}
    captions = {""}.union(*(row.captions for row in rows))
    return EncodedRows(tuple(rows), latents, mirrored, _cached_embeddings(base, sorted(captions), store, device))


def _cached_latents(
    base: BaseModelRef,
    rows: Sequence[SnapshotRow],
    store: ImageStore,
    side_px: int,
    mirror: bool,
    device: torch.device,
    on_progress: OnProgress | None,
) -> dict[str, Tensor]:
    encoder = folder_digest(base.folder / "vae", DigestCache.of_home(store.home))
    transform = f"{_IMAGE_TRANSFORM}-{side_px}px" + ("-mirrored" if mirror else "")
    cache = TensorCache(store.home / "cache" / "latents" / f"{encoder[:16]}-{transform}")
    by_digest = {row.sha256: row for row in rows}

    def encoder_of_images() -> Callable[[Sequence[str]], Tensor]:
        autoencoder = parts.load_autoencoder(base, device)

        def encode(digests: Sequence[str]) -> Tensor:
            images = load_images_uint8(store, [by_digest[digest] for digest in digests], side_px)
            return encode_images(autoencoder, images.flip(-1) if mirror else images)

        return encode

    return _look_up(cache, list(by_digest), encoder_of_images, on_progress, "encode images")


def _cached_embeddings(
    base: BaseModelRef, captions: Sequence[str], store: ImageStore, device: torch.device
) -> dict[str, Tensor]:
    digests = DigestCache.of_home(store.home)
    maker = folder_digest(base.folder / "text_encoder", digests) + folder_digest(base.folder / "tokenizer", digests)
    name = hashlib.sha256(maker.encode()).hexdigest()[:16]
    cache = TensorCache(store.home / "cache" / "text" / name)
    by_key = {hashlib.sha256(caption.encode()).hexdigest(): caption for caption in captions}

    def encoder_of_text() -> Callable[[Sequence[str]], Tensor]:
        tokenizer, text_encoder = parts.load_tokenizer(base), parts.load_text_encoder(base, device)
        return lambda keys: encode_prompts(tokenizer, text_encoder, [by_key[key] for key in keys])

    found = _look_up(cache, list(by_key), encoder_of_text, None, "encode captions")
    return {by_key[key]: tensor for key, tensor in found.items()}


def _look_up(
    cache: TensorCache,
    keys: Sequence[str],
    make_encoder: Callable[[], Callable[[Sequence[str]], Tensor]],
    on_progress: OnProgress | None,
    stage: str,
) -> dict[str, Tensor]:
    found = cache.load(keys)
    missing = [key for key in keys if key not in found]
    if missing:
        encode = make_encoder()
        for done, chunk in _chunks(missing):
            cache.add(dict(zip(chunk, encode(chunk), strict=True)))
            if on_progress:
                on_progress(stage, done, len(missing))
        # Read back, not kept from above: what is trained on is what the next run will find.
        found = cache.load(keys)
    return found


def _chunks(keys: Sequence[str]) -> Iterable[tuple[int, Sequence[str]]]:
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        yield start + len(chunk), chunk
