"""What a step trains on: latents, noise, timesteps and captions, in groups that go through the network together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdlora.diffusion.objectives import Objective
from sdlora.diffusion.schedule import draw_noise
from sdlora.diffusion.seeds import step_generator
from sdlora.training.config import TrainingConfig
from sdlora.training.encoded import EncodedRows
from sdlora.training.masks import mask_weights
from sdlora.training.order import EpochOrder


@dataclass(frozen=True)
class Batch:
    """Images of one shape that go through the network together.

    Attributes:
        latents: (B, C, h, w) clean latents.
        noise: (B, C, h, w).
        timesteps: (B,) int64 in [0, T).
        conditioning: what the denoiser is shown beside them, by the names of its `forward`; (B, ...) each.
        shares: (B,) each image's share of the step's loss; equal shares that add up to 1 if not given.
        position_weights: (B, 1, h, w) weights of the error's positions, with a mean of 1 per image; all alike if not
            given.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    conditioning: dict[str, Tensor]
    shares: Tensor | None = None
    position_weights: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        return replace(
            self,
            latents=self.latents.to(device),
            noise=self.noise.to(device),
            timesteps=self.timesteps.to(device),
            conditioning={name: tensor.to(device) for name, tensor in self.conditioning.items()},
            shares=None if self.shares is None else self.shares.to(device),
            position_weights=None if self.position_weights is None else self.position_weights.to(device),
        )


def draw_step(
    encoded: EncodedRows,
    order: EpochOrder,
    config: TrainingConfig,
    step: int,
    objective: Objective,
    process_index: int = 0,
    num_processes: int = 1,
    micro_batch_size: int | None = None,
) -> list[Batch]:
    """One process's share of a step: batches of one shape each, at most `micro_batch_size` images large.

    Everything random is drawn for the whole step, then each process takes its slice, so that the images, noise and
    timesteps of a step do not depend on the number of processes or the size of the batches.
    """
    drawn = order.images_of(step)
    size = len(drawn)
    shapes = [encoded.views[one.view].latents[encoded.rows[one.index].sha256].shape for one in drawn]
    generator = step_generator(config.seed, step, "batch")
    noise = _noise(shapes, generator, config.noise_offset)
    timesteps = objective.draw_timesteps(size, generator)
    caption_draw, dropout_draw, flip_draw = torch.rand(3, size, generator=generator).tolist()
    share = range(process_index * size // num_processes, (process_index + 1) * size // num_processes)

    def batch_of(positions: Sequence[int]) -> Batch:
        latents, conditioning, masks = [], [], []
        for position in positions:
            row, view = encoded.rows[drawn[position].index], encoded.views[drawn[position].view]
            flipped = config.horizontal_flip and flip_draw[position] < 0.5
            latents.append((view.mirrored if flipped else view.latents)[row.sha256])
            if config.masked_weight is not None:
                mask = view.masks[row.sha256]
                masks.append(mask.flip(-1) if flipped else mask)
            dropped = dropout_draw[position] < config.caption_dropout or not row.captions
            caption = "" if dropped else row.captions[int(caption_draw[position] * len(row.captions))]
            conditioning.append(encoded.conditioning(row, drawn[position].view, caption))
        return Batch(
            latents=torch.stack(latents),
            noise=torch.stack([noise[position] for position in positions]),
            timesteps=timesteps[list(positions)],
            conditioning=stack_conditioning(conditioning),
            shares=torch.full((len(positions),), 1 / size),
            position_weights=None if config.masked_weight is None else mask_weights(masks, config.masked_weight),
        )

    return [batch_of(positions) for positions in _passes(share, shapes, micro_batch_size or size)]


def stack_conditioning(of_images: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The conditioning of several images as that of one batch."""
    return {name: torch.stack([each[name] for each in of_images]) for name in of_images[0]}


def _passes(positions: range, shapes: Sequence[torch.Size], largest: int) -> list[list[int]]:
    """Positions that go through the network together: of one shape, at most `largest`."""
    by_shape: dict[torch.Size, list[int]] = {}
    for position in positions:
        by_shape.setdefault(shapes[position], []).append(position)
    return [group[start : start + largest] for group in by_shape.values() for start in range(0, len(group), largest)]


def _noise(shapes: Sequence[torch.Size], generator: torch.Generator, offset: float) -> list[Tensor]:
    """Noise for each image of the step, drawn shape by shape."""
    noise: dict[int, Tensor] = {}
    for positions in _passes(range(len(shapes)), shapes, len(shapes)):
        drawn = draw_noise((len(positions), *shapes[positions[0]]), generator, offset)
        noise |= dict(zip(positions, drawn, strict=True))
    return [noise[position] for position in range(len(shapes))]
