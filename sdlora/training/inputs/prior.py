"""Prior preservation: a second term of the loss, on images that the frozen base itself drew of class prompts.

An adapter trained only on its own images gives every subject their look. Images that the base drew of prompts such as
"a photograph of a dog" keep the rest of the model unchanged during training.
Source: Ruiz et al. 2023, arXiv:2208.12242 (DreamBooth), section 3.

The images are not part of the dataset: only the caches hold them, no snapshot and no data page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sdlora.core.progress import OnProgress
from sdlora.core.refs import BaseModelRef
from sdlora.core.tensor_cache import Encode, TensorCache
from sdlora.data.snapshot import SnapshotRow
from sdlora.models import parts
from sdlora.models.encode import encode_images
from sdlora.models.families import family_of
from sdlora.models.files.digests import DigestCache, folder_digest
from sdlora.training.config import ResolvedTraining
from sdlora.training.inputs.encoded import EncodedRows, Resolution, encode_captions
from sdlora.training.inputs.framing import centre_framing
from sdlora.training.inputs.prior_images import draw_prior_images, plan_prior_images, write_sheet

PRIOR_SHEET = "prior-images.png"


def encode_prior(
    base: BaseModelRef,
    config: ResolvedTraining,
    home: Path,
    device: torch.device,
    on_progress: OnProgress | None = None,
    tokens_only: bool = False,
    sheet: Path | None = None,
) -> EncodedRows | None:
    """Draw and encode the prior images, or load them from the caches; None without `prior_weight`.

    Args:
        base: the frozen base.
        config: resolved settings; `prior_weight` requests the images.
        home: the state folder, which holds the caches.
        device: where the base draws and encodes.
        on_progress: called with "draw prior images" and "encode prior images".
        tokens_only: only tokenise the prompts, for text encoders that are trained.
        sheet: path of an overview picture for people.

    Raises:
        StorageError: a cache cannot be written; finished images are kept.
        WeightsError: the base is damaged.
    """
    if config.prior_weight is None:
        return None
    planned = plan_prior_images(base, config)
    images = draw_prior_images(base, planned, config, home, device, on_progress)
    if sheet is not None:
        write_sheet(list(images.values()), sheet)
    rows = tuple(SnapshotRow(image.key, (image.prompt,), "train") for image in planned)
    resolutions = tuple(
        _resolution(base, images, side_px, config.horizontal_flip, home, device, on_progress)
        for side_px in config.resolutions
    )
    captions = sorted({"", *config.prior_prompts})
    return EncodedRows(rows, resolutions, encode_captions(base, captions, home, device, tokens_only))


def _resolution(
    base: BaseModelRef,
    images: Mapping[str, Tensor],
    side_px: int,
    mirror: bool,
    home: Path,
    device: torch.device,
    on_progress: OnProgress | None,
) -> Resolution:
    """Encode the images at one resolution of the run, as squares: the bucket of square images."""
    family = family_of(base.folder)
    encoder_digest = folder_digest(base.folder / "vae", DigestCache.of_home(home))[:16]

    def latents(mirrored: bool) -> dict[str, Tensor]:
        def make_encoder() -> Encode:
            autoencoder = parts.load_autoencoder(base, device)

            def encode(keys: Sequence[str]) -> dict[str, Tensor]:
                pixels = _scaled(torch.stack([images[key] for key in keys]), side_px)
                encoded = encode_images(autoencoder, pixels.flip(-1) if mirrored else pixels)
                return dict(zip(keys, encoded, strict=True))

            return encode

        folder = f"{encoder_digest}-prior-{side_px}px" + ("-mirrored" if mirrored else "")
        cache = TensorCache(home / "cache" / "latents" / folder)
        return cache.load_or_encode(
            list(images), make_encoder, device=device, stage="encode prior images", on_progress=on_progress
        )

    framing = centre_framing((side_px, side_px), (side_px, side_px))
    image_conditioning = {key: family.image_conditioning(framing) for key in (images if family.shows_framing else ())}
    return Resolution(latents(mirrored=False), latents(mirrored=True) if mirror else {}, image_conditioning)


def _scaled(images_uint8: Tensor, side_px: int) -> Tensor:
    """Resize (B, 3, H, H) uint8 -> (B, 3, side, side) uint8."""
    if images_uint8.shape[-1] == side_px:
        return images_uint8
    resized = torch.nn.functional.interpolate(
        images_uint8.float(), size=(side_px, side_px), mode="bicubic", antialias=True
    )
    return resized.round().clamp(0, 255).to(torch.uint8)
