"""What a step trains on, as a function of (seed, step) alone: no sampler has a state that could be lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from sdlora.diffusion.objectives import Objective
from sdlora.diffusion.schedule import draw_noise
from sdlora.diffusion.seeds import step_generator
from sdlora.training.config import TrainingConfig
from sdlora.training.encoded import EncodedRows


@dataclass(frozen=True)
class Batch:
    """One process's share of a step.

    Attributes:
        latents: (B, C, h, w) clean latents.
        noise: (B, C, h, w).
        timesteps: (B,) int64 in [0, T).
        conditioning: what the denoiser is shown beside them, by the names of its `forward`; (B, ...) each.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    conditioning: dict[str, Tensor]

    def to(self, device: torch.device) -> Batch:
        return replace(
            self,
            latents=self.latents.to(device),
            noise=self.noise.to(device),
            timesteps=self.timesteps.to(device),
            conditioning={name: tensor.to(device) for name, tensor in self.conditioning.items()},
        )


def draw_batch(
    encoded: EncodedRows,
    config: TrainingConfig,
    step: int,
    objective: Objective,
    process_index: int = 0,
    num_processes: int = 1,
) -> Batch:
    """The batch of one step; everything random is drawn for the whole step, then each process takes its slice."""
    generator = step_generator(config.seed, step, "batch")
    size = config.batch_size
    first = encoded.latents[encoded.rows[0].sha256]
    noise = draw_noise((size, *first.shape), generator, config.noise_offset)
    timesteps = objective.draw_timesteps(size, generator)
    caption_draw, dropout_draw, flip_draw = torch.rand(3, size, generator=generator).tolist()
    latents, conditioning = [], []
    share = slice(process_index * size // num_processes, (process_index + 1) * size // num_processes)
    indices = image_indices(len(encoded.rows), size, config.seed, step)
    for position in range(size)[share]:
        row = encoded.rows[indices[position]]
        flipped = config.horizontal_flip and flip_draw[position] < 0.5
        latents.append((encoded.mirrored if flipped else encoded.latents)[row.sha256])
        dropped = dropout_draw[position] < config.caption_dropout or not row.captions
        caption = "" if dropped else row.captions[int(caption_draw[position] * len(row.captions))]
        conditioning.append(encoded.conditioning(row.sha256, caption))
    return Batch(torch.stack(latents), noise[share], timesteps[share], stack_conditioning(conditioning))


def stack_conditioning(of_images: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The conditioning of several images as that of one batch."""
    return {name: torch.stack([each[name] for each in of_images]) for name in of_images[0]}


def image_indices(count: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Rows of the step's batch: every image once per epoch, each epoch in its own order, batches across the seam."""
    positions = range(step * batch_size, (step + 1) * batch_size)
    return [_epoch_order(count, seed, position // count)[position % count] for position in positions]


@lru_cache(maxsize=4)
def _epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    return torch.randperm(count, generator=step_generator(seed, epoch, "epoch")).tolist()
