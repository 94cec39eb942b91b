"""Encoded snapshots: latents and caption embeddings, computed once and kept on disk.

The name of a cache folder holds the encoder's digest and the transform. The key of an entry holds the digest of the
image or caption. So a changed image, caption, encoder or size never matches an old entry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from sdlora.core.progress import OnProgress
from sdlora.core.refs import BaseModelRef
from sdlora.core.tensor_cache import Encode, TensorCache
from sdlora.data.snapshot import SnapshotRow
from sdlora.models import parts
from sdlora.models.encode import encode_text
from sdlora.models.families import family_of
from sdlora.models.families.base import Family, TextPart
from sdlora.models.files.digests import DigestCache, folder_digest
from sdlora.store.image_store import ImageStore
from sdlora.training.inputs.framing import Size, centre_framing, target_sizes, upright_sizes
from sdlora.training.inputs.image_encoder import ImageEncoder
from sdlora.training.inputs.masks import read_masks
from sdlora.training.learning.trained_text import caption_tokens


@dataclass(frozen=True)
class Resolution:
    """Images of a snapshot at one resolution.

    Attributes:
        latents: by image digest, (C, h, w) each; the bucket decides the shape.
        mirrored: latents of the mirrored images; empty if not requested.
        image_conditioning: by image digest, the denoiser's inputs that depend on the image, for families that have any.
        masks: by image digest, (1, h, w) weights in [0, 1]; empty if not requested.
    """

    latents: Mapping[str, Tensor]
    mirrored: Mapping[str, Tensor] = field(default_factory=dict)
    image_conditioning: Mapping[str, dict[str, Tensor]] = field(default_factory=dict)
    masks: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class EncodedRows:
    """Rows of a snapshot with their tensors.

    Attributes:
        rows: the snapshot's rows in order, without the skipped ones.
        resolutions: the tensors of the images, once per resolution.
        embeddings: by caption, the denoiser's inputs by name; the empty caption is always included. If the text
            encoders are trained: token ids by encoder folder.
        skipped: by image digest, the reason why the image cannot be used.
    """

    rows: tuple[SnapshotRow, ...]
    resolutions: tuple[Resolution, ...]
    embeddings: Mapping[str, dict[str, Tensor]]
    skipped: Mapping[str, str] = field(default_factory=dict)

    def conditioning(self, row: SnapshotRow, resolution: int, caption: str) -> dict[str, Tensor]:
        """Return one image's further inputs by parameter of the denoiser's `forward`, without batch dimension."""
        return self.embeddings[caption] | self.resolutions[resolution].image_conditioning.get(row.sha256, {})

    def shapes(self) -> list[list[tuple[int, ...]]]:
        """Return the latents' shapes by resolution and row."""
        return [[tuple(resolution.latents[row.sha256].shape) for row in self.rows] for resolution in self.resolutions]


@dataclass(frozen=True)
class Inputs:
    """Inputs of a run, for training and validation.

    Attributes:
        train: the training rows.
        held_out: the held-out rows; None if there are none.
        prior: the prior images; None without `prior_weight`.
    """

    train: EncodedRows
    held_out: EncodedRows | None
    prior: EncodedRows | None


@dataclass(frozen=True)
class Encoding:
    """Options of encoding images and captions.

    Attributes:
        sides_px: one resolution each: the side of the squares, or of a square with the area of the buckets.
        aspect_buckets: crop each image to the bucket of the nearest proportions instead of a square.
        mirror: also encode the mirrored images.
        masks: also read the rows' masks, or the alpha channel of an image without a mask.
        tokens_only: only tokenise the captions, for text encoders that are trained.
    """

    sides_px: tuple[int, ...]
    aspect_buckets: bool = False
    mirror: bool = False
    masks: bool = False
    tokens_only: bool = False


class CaptionEmbeddings(Mapping[str, dict[str, Tensor]]):
    """Embeddings by caption, computed by the family from the text encoders' outputs.

    Computed at each access: the outputs are mapped from disk, and the embeddings of all captions would fill the memory.
    """

    def __init__(self, family: Family, outputs: Mapping[str, Mapping[str, dict[str, Tensor]]]) -> None:
        """Wrap outputs by encoder folder, caption and output name."""
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
    encoding: Encoding,
    *,
    device: torch.device,
    on_progress: OnProgress | None = None,
) -> EncodedRows:
    """Look up or compute all tensors of `rows`; the encoders are loaded only if something is missing.

    Args:
        base: the model whose encoders are used.
        rows: the images and captions.
        store: holds the images' bytes; its `home` holds the caches.
        encoding: resolutions and options.
        device: where the encoders run.
        on_progress: called with "encode images".

    Raises:
        StorageError: the cache cannot be written.
        WeightsError: an encoder is damaged.
    """
    family = family_of(base.folder)
    skipped: dict[str, str] = {}
    digests = [row.sha256 for row in rows]
    originals: dict[str, Size] = {}
    if encoding.aspect_buckets or family.shows_framing:
        originals, skipped = upright_sizes(digests, store)
        digests = [digest for digest in digests if digest not in skipped]
    by_digest = {row.sha256: row for row in rows}
    encoder = ImageEncoder(base, store, by_digest, device, on_progress)
    resolutions = []
    for side_px in encoding.sides_px:
        targets = target_sizes(digests, originals, side_px, family, encoding.aspect_buckets)
        latents = encoder.latents(targets)
        skipped |= encoder.unreadable
        mirrored = (
            encoder.latents({digest: targets[digest] for digest in latents}, mirror=True) if encoding.mirror else {}
        )
        image_conditioning = {
            digest: family.image_conditioning(centre_framing(originals[digest], targets[digest]))
            for digest in (latents if family.shows_framing else ())
        }
        readable = {digest: targets[digest] for digest in latents}
        masks: Mapping[str, Tensor] = {}
        if encoding.masks:
            masks, unreadable = read_masks(store, by_digest, readable, family.latent_reduction)
            skipped |= unreadable
        resolutions.append(Resolution(latents, mirrored, image_conditioning, masks))
    encoder.close()
    usable_rows = tuple(row for row in rows if row.sha256 not in skipped)
    captions = sorted({""}.union(*(row.captions for row in usable_rows)))
    embeddings = encode_captions(base, captions, store.home, device, encoding.tokens_only)
    return EncodedRows(usable_rows, tuple(resolutions), embeddings, skipped)


def encode_captions(
    base: BaseModelRef, captions: Sequence[str], home: Path, device: torch.device, tokens_only: bool = False
) -> Mapping[str, dict[str, Tensor]]:
    """Look up or compute the embeddings of captions, or with `tokens_only` the token ids by encoder folder.

    Raises:
        StorageError: the cache cannot be written.
        WeightsError: an encoder is damaged.
    """
    if tokens_only:
        return caption_tokens(base, captions)
    family = family_of(base.folder)
    # One encoder at a time: the largest one may fill the memory.
    outputs = {part.folder: _cached_text(base, part, captions, home, device) for part in family.text_parts}
    return CaptionEmbeddings(family, outputs)


def _cached_text(
    base: BaseModelRef, part: TextPart, captions: Sequence[str], home: Path, device: torch.device
) -> dict[str, dict[str, Tensor]]:
    """Look up or compute one encoder's outputs by caption and name; bases that share an encoder share its entries."""
    digests = DigestCache.of_home(home)
    folders = (base.folder / part.folder, base.folder / part.tokenizer_folder)
    digest = "".join(folder_digest(folder, digests) for folder in folders)
    cache = TensorCache(home / "cache" / "text" / f"{hashlib.sha256(digest.encode()).hexdigest()[:16]}-{part.name}")
    by_key = {hashlib.sha256(caption.encode()).hexdigest(): caption for caption in captions}

    def make_encoder() -> Encode:
        tokenizer, encoder = parts.load_tokenizer(base, part), parts.load_text_encoder(base, part, device)

        def encode(keys: Sequence[str]) -> dict[str, Tensor]:
            outputs = encode_text(part, tokenizer, encoder, [by_key[key] for key in keys])
            return {
                f"{key}.{name}": outputs[name][index] for index, key in enumerate(keys) for name in part.output_names
            }

        return encode

    suffixes = [f".{name}" for name in part.output_names]
    entries = cache.load_or_encode(
        list(by_key), make_encoder, device=device, stage="encode captions", suffixes=suffixes
    )
    return {caption: {name: entries[f"{key}.{name}"] for name in part.output_names} for key, caption in by_key.items()}
