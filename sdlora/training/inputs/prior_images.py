"""Prior images: what the frozen base draws of class prompts, each image drawn once and kept on disk."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from sdlora.core.devices import empty_device_cache
from sdlora.core.files import json_digest, replace_file
from sdlora.core.progress import OnProgress
from sdlora.core.refs import BaseModelRef
from sdlora.core.tensor_cache import TensorCache
from sdlora.models import parts
from sdlora.models.stable_diffusion import StableDiffusion
from sdlora.training.config import ResolvedTraining
from sdlora.training.identity import PRIOR_VERSION

# The defaults of evaluation, so that training preserves what people see of the base.
_STEPS, _GUIDANCE_SCALE = 20, 3.5
# The same images always share a batch: rounding depends on the batch size, and a run that was killed has to end with
# the same images as an uninterrupted one.
_IMAGES_PER_BATCH = 4
_IMAGES_PER_SHEET, _SHEET_COLUMNS, _THUMBNAIL_PX = 64, 8, 128


@dataclass(frozen=True)
class PriorImage:
    """Image for the base to draw.

    Attributes:
        key: digest of everything that decides the pixels; the name in the caches.
        prompt: text to draw.
        seed: seed of the noise.
    """

    key: str
    prompt: str
    seed: int


def plan_prior_images(base: BaseModelRef, config: ResolvedTraining) -> list[PriorImage]:
    """Plan the images that the settings request; the prompts take turns.

    A longer list begins with the images of a shorter one, except for the last few. So a higher count draws only new
    images.
    """
    prompts = [config.prior_prompts[number % len(config.prior_prompts)] for number in range(config.prior_images)]
    seeds = [_seed(config.seed, number) for number in range(config.prior_images)]
    planned = []
    for start in range(0, config.prior_images, _IMAGES_PER_BATCH):
        batch = slice(start, start + _IMAGES_PER_BATCH)
        digest = json_digest(
            {
                "base": base.digest,
                "prompts": prompts[batch],
                "seeds": seeds[batch],
                "steps": _STEPS,
                "guidance_scale": _GUIDANCE_SCALE,
                "resolution_px": parts.native_resolution(base),
                "precision": config.precision,
                "version": PRIOR_VERSION,
            }
        )
        planned += [
            PriorImage(hashlib.sha256(f"{digest}/{index}".encode()).hexdigest(), prompt, seed)
            for index, (prompt, seed) in enumerate(zip(prompts[batch], seeds[batch], strict=True))
        ]
    return planned


def draw_prior_images(
    base: BaseModelRef,
    planned: Sequence[PriorImage],
    config: ResolvedTraining,
    home: Path,
    device: torch.device,
    on_progress: OnProgress | None = None,
) -> dict[str, Tensor]:
    """Draw every planned image, or load it from the cache: (3, H, W) uint8 by key, square, at the base's resolution.

    The images are drawn and kept in small batches, so a killed process loses only the batch in progress.

    Args:
        base: the base model, which draws without an adapter.
        planned: result of `plan_prior_images`.
        config: resolved settings.
        home: the state folder; the images are kept in `cache/prior`.
        device: where the base draws.
        on_progress: called with "draw prior images", if any are missing.

    Raises:
        StorageError: the cache cannot be written; finished images are kept.
        WeightsError: the base is damaged.
    """
    cache = TensorCache(home / "cache" / "prior" / base.digest[:16])
    keys = [image.key for image in planned]
    images = cache.load(keys)
    batches = [planned[start : start + _IMAGES_PER_BATCH] for start in range(0, len(planned), _IMAGES_PER_BATCH)]
    missing_batches = [batch for batch in batches if any(image.key not in images for image in batch)]
    if missing_batches:
        model = StableDiffusion.from_ref(base, device=device.type, precision=config.precision)
        total = sum(map(len, missing_batches))
        done = 0
        for batch in missing_batches:
            pixels = model.generate(
                [image.prompt for image in batch],
                [image.seed for image in batch],
                steps=_STEPS,
                guidance_scale=_GUIDANCE_SCALE,
            )
            cache.add({image.key: tensor for image, tensor in zip(batch, pixels, strict=True)})
            done += len(batch)
            if on_progress:
                on_progress("draw prior images", done, total)
        del model
        empty_device_cache(device)
        images = cache.load(keys)  # read back, so that this run trains on the same images as the next one
    return {key: images[key] for key in keys}


def write_sheet(images_uint8: Sequence[Tensor], path: Path) -> None:
    """Write an overview of the first images, small and side by side, to show people how the base reads the prompts.

    Raises:
        StorageError: the disk is full or not writable.
    """
    sheet_images = images_uint8[:_IMAGES_PER_SHEET]
    side_px = min(_THUMBNAIL_PX, sheet_images[0].shape[-1])
    sheet = Image.new(
        "RGB",
        (side_px * min(_SHEET_COLUMNS, len(sheet_images)), side_px * -(-len(sheet_images) // _SHEET_COLUMNS)),
        "white",
    )
    for number, image in enumerate(sheet_images):
        thumbnail = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((side_px, side_px))
        sheet.paste(thumbnail, (number % _SHEET_COLUMNS * side_px, number // _SHEET_COLUMNS * side_px))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    replace_file(path, buffer.getvalue())


def _seed(seed: int, number: int) -> int:
    """Derive a seed of 32 bits, which any image tool accepts."""
    return int.from_bytes(hashlib.sha256(f"{seed}/prior/{number}".encode()).digest()[:4], "little")
