"""Sizes of a base model's images and latents, from its settings files; without heavy imports."""

from __future__ import annotations

import math
from pathlib import Path

from sdlora.models.families.layouts import Layout, read_json


def latent_reduction(folder: Path) -> int:
    """Return the pixels per latent position along one side.

    Each level of the autoencoder except the last halves the side.

    Raises:
        WeightsError: a settings file is missing or damaged.
    """
    return 1 << (len(read_json(folder / "vae" / "config.json")["block_out_channels"]) - 1)


def native_resolution(folder: Path, layout: Layout) -> int:
    """Return the side of the images that the base was trained on, in pixels.

    Raises:
        WeightsError: a settings file is missing or damaged.
    """
    if layout.name == "flux":  # only the noise schedule has a size: the longest sequence of tokens, each 2 x 2 latents
        tokens = read_json(folder / "scheduler" / "scheduler_config.json").get("max_image_seq_len", 4096)
        return math.isqrt(int(tokens)) * 2 * latent_reduction(folder)
    return int(read_json(folder / layout.denoiser / "config.json")["sample_size"]) * latent_reduction(folder)
