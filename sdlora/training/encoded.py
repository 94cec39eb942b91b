"""A snapshot as the network sees it: latents and caption embeddings, each computed once and kept on disk.

A cache folder is named by what made its entries (encoder digest, transform), an entry by what it was made from
(image digest, caption). So a changed image, caption, encoder or size is never mistaken for a known one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sdlora.artifacts import BaseModelRef
from sdlora.data import SnapshotRow, load_images_uint8
from sdlora.models import parts
from sdlora.models.digests import DigestCache, folder_digest
from sdlora.models.encode import encode_images, encode_text
from sdlora.models.families import family_of
from sdlora.models.families.base import Family, TextPart, free
from sdlora.progress import OnProgress
from sdlora.store import ImageStore
from sdlora.training.framing import centre_square_framings
from sdlora.training.tensor_cache import TensorCache

_IMAGE_TRANSFORM = "centre-square-v2"  # raised when load_images_uint8 or encode_images change their results
_CHUNK = 64
_ONLY = ""  # the output of an encoder that has one

Encode = Callable[[Sequence[str]], dict[str, Tensor]]
"""From the keys of one chunk to its outputs by name, (N, ...) each."""


@dataclass(frozen=True)
class EncodedRows:
    """Rows of a snapshot with their tensors.

    Attributes:
        rows: the snapshot's rows, in its order.
        latents: by image digest, (C, h, w) each.
        mirrored: the same of the mirrored images; empty when not asked for.
        embeddings: by caption, what the denoiser is shown of it, by name; always holds the empty caption.
        image_conditioning: by image digest, what the denoiser is shown of the image itself, for families that do so.
    """

    rows: tuple[SnapshotRow, ...]
    latents: dict[str, Tensor]
    mirrored: dict[str, Tensor]
    embeddings: Mapping[str, dict[str, Tensor]]
    image_conditioning: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def conditioning(self, sha256: str, caption: str) -> dict[str, Tensor]:
        """All that the denoiser is shown beside one image, by the names of its `forward`, without batch dimension."""
        return self.embeddings[caption] | self.image_conditioning.get(sha256, {})


class CaptionEmbeddings(Mapping[str, dict[str, Tensor]]):
    """By caption, what the family makes of the text encoders' outputs.

    Made anew at each look: the outputs are mapped from disk, and joined for all captions they would fill the memory.
    """

    def __init__(self, family: Family, outputs: Mapping[str, Mapping[str, dict[str, Tensor]]]) -> None:
        """Take the outputs by encoder folder, caption and output name."""
        self.family = family
        self.outputs = outputs
        self._captions = next(iter(outputs.values()))

    def __getitem__(self, caption: str) -> dict[str, Tensor]:
        batch = {
            encoder: {name: tensor[None] for name, tensor in by_caption[caption].items()}
            for encoder, by_caption in self.outputs.items()
        }
        return {name: tensor[0] for name, tensor in self.family.conditioning(batch).items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._captions)

    def __len__(self) -> int:
        return len(self._captions)


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
    captions = sorted({""}.union(*(row.captions for row in rows)))
    family = family_of(base.folder)
    # One encoder after the other: the largest of them alone may fill the memory.
    outputs = {part.folder: _cached_text(base, part, captions, store, device) for part in family.text_parts}
    framings = centre_square_framings(rows, store, side_px) if family.shows_framing else {}
    return EncodedRows(
        tuple(rows),
        latents,
        mirrored,
        CaptionEmbeddings(family, outputs),
        {sha256: family.image_conditioning(framing) for sha256, framing in framings.items()},
    )


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
    transform += "".join(sorted({f"-on-{row.background.lstrip('#')}" for row in rows if row.background}))
    cache = TensorCache(store.home / "cache" / "latents" / f"{encoder[:16]}-{transform}")
    by_digest = {row.sha256: row for row in rows}

    def encoder_of_images() -> Encode:
        autoencoder = parts.load_autoencoder(base, device)

        def encode(digests: Sequence[str]) -> dict[str, Tensor]:
            images = load_images_uint8(store, [by_digest[digest] for digest in digests], side_px)
            return {_ONLY: encode_images(autoencoder, images.flip(-1) if mirror else images)}

        return encode

    found = _look_up(cache, list(by_digest), encoder_of_images, on_progress, "encode images", device)
    return {key: tensors[_ONLY] for key, tensors in found.items()}


def _cached_text(
    base: BaseModelRef, part: TextPart, captions: Sequence[str], store: ImageStore, device: torch.device
) -> dict[str, dict[str, Tensor]]:
    """One encoder's outputs by caption and name; bases that share an encoder share its entries."""
    digests = DigestCache.of_home(store.home)
    folders = (base.folder / part.folder, base.folder / part.tokenizer_folder)
    maker = "".join(folder_digest(folder, digests) for folder in folders)
    cache = TensorCache(
        store.home / "cache" / "text" / f"{hashlib.sha256(maker.encode()).hexdigest()[:16]}-{part.name}"
    )
    by_key = {hashlib.sha256(caption.encode()).hexdigest(): caption for caption in captions}

    def encoder_of_text() -> Encode:
        tokenizer, encoder = parts.load_tokenizer(base, part), parts.load_text_encoder(base, part, device)
        return lambda keys: encode_text(part, tokenizer, encoder, [by_key[key] for key in keys])

    found = _look_up(cache, list(by_key), encoder_of_text, None, "encode captions", device, part.output_names)
    return {by_key[key]: tensors for key, tensors in found.items()}


def _look_up(
    cache: TensorCache,
    keys: Sequence[str],
    make_encoder: Callable[[], Encode],
    on_progress: OnProgress | None,
    stage: str,
    device: torch.device,
    outputs: Sequence[str] = (_ONLY,),
) -> dict[str, dict[str, Tensor]]:
    """By key and output, from the cache; what is missing is computed first."""
    entries = {key: {name: f"{key}.{name}" if name else key for name in outputs} for key in keys}
    wanted = [entry for of_key in entries.values() for entry in of_key.values()]
    found = cache.load(wanted)
    missing = [key for key in keys if not found.keys() >= set(entries[key].values())]
    if missing:
        encode = make_encoder()
        for done, chunk in _chunks(missing):
            encoded = encode(chunk)
            cache.add({entries[key][name]: encoded[name][index] for index, key in enumerate(chunk) for name in outputs})
            if on_progress:
                on_progress(stage, done, len(missing))
        del encode
        free(device)
        # Read back, not kept from above: what is trained on is what the next run will find.
        found = cache.load(wanted)
    return {key: {name: found[entry] for name, entry in of_key.items()} for key, of_key in entries.items()}


def _chunks(keys: Sequence[str]) -> Iterable[tuple[int, Sequence[str]]]:
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        yield start + len(chunk), chunk
