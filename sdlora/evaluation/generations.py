"""Generations: the images that one contestant draws and restores, computed once and cached."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import diffusers
import torch
from torch import Tensor

from sdlora.core.files import json_digest
from sdlora.core.tensor_cache import TensorCache
from sdlora.evaluation.config import EvaluationConfig
from sdlora.evaluation.fidelity import renoise_and_denoise
from sdlora.evaluation.prompts import Prompt
from sdlora.models.features import ImageFeatures
from sdlora.models.stable_diffusion import StableDiffusion

GENERATION_VERSION = 1  # raise it when the same settings give other images
_DRAWING_SETTINGS = {
    *("batch_size", "sampler", "steps", "guidance_scale", "negative_prompt"),
    *("denoising_fraction", "denoising_steps"),
}


@dataclass(frozen=True)
class Generations:
    """Images, features and drawing times of one contestant, in the order of the prompts."""

    images_uint8: Tensor  # (N, 3, H, W) drawn from the prompts
    denoised_uint8: Tensor  # (N, 3, H, W) held-out images, turned to noise part of the way and restored
    features: Tensor  # (N, D) of the drawn images
    batch_seconds: Tensor  # (batches,) drawing time per image, measured when the images were drawn


def load_or_draw(
    load_model: Callable[[], StableDiffusion],
    weights_digest: str,
    prompts: Sequence[Prompt],
    held_out_uint8: Tensor,
    config: EvaluationConfig,
    home: Path,
    on_done: Callable[[int], None],
) -> Generations:
    """Load the generations from `home/cache/generations`, or load the model and draw them.

    The times are kept with the images: they depend on the machine and its load when the images were drawn.

    Args:
        load_model: loads the contestant's model; called only without a cache entry.
        weights_digest: digest of base and adapter, for the cache key.
        prompts: N prompts.
        held_out_uint8: (N, 3, H, W) images of the prompts, in [0, 255].
        config: sampler settings.
        home: the state folder.
        on_done: called with the number of finished prompts.
    """
    key = json_digest(
        {
            "weights": weights_digest,
            "prompts": [(prompt.row.sha256, prompt.text, prompt.seed) for prompt in prompts],
            "side_px": held_out_uint8.shape[-1],
            "settings": config.model_dump(mode="json", include=_DRAWING_SETTINGS),
            "version": [GENERATION_VERSION, torch.__version__, diffusers.__version__],
        }
    )

    names = [field.name for field in fields(Generations)]

    def draw() -> dict[str, Tensor]:
        model, extract = load_model(), ImageFeatures()
        batches: dict[str, list[Tensor]] = {name: [] for name in names}
        for start in range(0, len(prompts), config.batch_size):
            batch = prompts[start : start + config.batch_size]
            texts, seeds = [prompt.text for prompt in batch], [prompt.seed for prompt in batch]
            started = time.perf_counter()
            images = model.generate(
                texts,
                seeds,
                steps=config.steps,
                guidance_scale=config.guidance_scale,
                negative_prompt=config.negative_prompt,
                sampler=config.sampler,
                batch_size=config.batch_size,
            )
            seconds = (time.perf_counter() - started) / len(batch)
            real = held_out_uint8[start : start + config.batch_size]
            restored = renoise_and_denoise(model, real, texts, seeds, config.denoising_fraction, config.denoising_steps)
            drawn = (images, restored, extract(images), torch.tensor([seconds]))
            for name, tensor in zip(batches, drawn, strict=True):
                batches[name].append(tensor)
            on_done(start + len(batch))
        return {name: torch.cat(tensors) for name, tensors in batches.items()}

    tensors = TensorCache(home / "cache" / "generations").load_or_compute(key, names, draw)
    on_done(len(prompts))
    return Generations(**tensors)
