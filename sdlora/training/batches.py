"""What a step trains on, as a function of (seed, step) alone: no sampler has a state that could be lost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from sdlora.diffusion.schedule import draw_noise, draw_timesteps
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
        embeddings: (B, T, D) caption embeddings.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    embeddings: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(*(t.to(device) for t in (self.latents, self.noise, self.timesteps, self.embeddings)))


def draw_batch(
    encoded: EncodedRows,
    config: TrainingConfig,
    step: int,
    num_train_timesteps: int,
    process_index: int = 0,
    num_processes: int = 1,
) -> Batch:
    """The batch of one step; everything random is drawn for the whole step, then each process takes its slice."""
    generator = step_generator(config.seed, step, "batch")
    size = config.batch_size
    first = encoded.latents[encoded.rows[0].sha256]
    noise = draw_noise((size, *first.shape), generator, config.noise_offset)
    timesteps = draw_timesteps(size, num_train_timesteps, generator)
    caption_draw, dropout_draw, flip_draw = torch.rand(3, size, generator=generator).tolist()
    latents, embeddings = [], []
    share = slice(process_index * size // num_processes, (process_index + 1) * size // num_processes)
    indices = image_indices(len(encoded.rows), size, config.seed, step)
    for position in range(size)[share]:
        row = encoded.rows[indices[position]]
        flipped = config.horizontal_flip and flip_draw[position] < 0.5
        latents.append((encoded.mirrored if flipped else encoded.latents)[row.sha256])
        dropped = dropout_draw[position] < config.caption_dropout or not row.captions
        caption = "" if dropped else row.captions[int(caption_draw[position] * len(row.captions))]
        embeddings.append(encoded.embeddings[caption])
    return Batch(torch.stack(latents), noise[share], timesteps[share], torch.stack(embeddings))


def image_indices(count: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Rows of the step's batch: every image once per epoch, each epoch in its own order, batches across the seam."""
    positions = range(step * batch_size, (step + 1) * batch_size)
    return [_epoch_order(count, seed, position // count)[position % count] for position in positions]


@lru_cache(maxsize=4)
def _epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    return torch.randperm(count, generator=step_generator(seed, epoch, "epoch")).tolist()
