"""What a step trains on: latents, noise, timesteps and captions, in groups that go through the network together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdlora.diffusion.objectives import Objective
from sdlora.diffusion.schedule import draw_noise
from sdlora.diffusion.seeds import step_generator
from sdlora.training.config import ResolvedTraining
from sdlora.training.inputs.encoded import EncodedRows
from sdlora.training.inputs.masks import mask_weights
from sdlora.training.inputs.order import EpochOrder, repeats_for


@dataclass(frozen=True)
class Batch:
    """Images of one shape that go through the network together.

    Attributes:
        latents: (B, C, h, w) clean latents.
        noise: (B, C, h, w).
        timesteps: (B,) int64 in [0, T).
        conditioning: what the denoiser is shown beside them, by the names of its `forward`; (B, ...) each.
        loss_weights: (B,) each image's share of the step's loss; equal ones that add up to 1 if not given.
        groups: (B,) int64, which group of the step each image belongs to; not given where there is only one.
        position_weights: (B, 1, h, w) weights of the error's positions, with a mean of 1 per image; all alike if not
            given.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    conditioning: dict[str, Tensor]
    loss_weights: Tensor | None = None
    groups: Tensor | None = None
    position_weights: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        return replace(
            self,
            latents=self.latents.to(device),
            noise=self.noise.to(device),
            timesteps=self.timesteps.to(device),
            conditioning={name: tensor.to(device) for name, tensor in self.conditioning.items()},
            loss_weights=None if self.loss_weights is None else self.loss_weights.to(device),
            groups=None if self.groups is None else self.groups.to(device),
            position_weights=None if self.position_weights is None else self.position_weights.to(device),
        )


@dataclass(frozen=True)
class BatchGroup:
    """Images of which every step takes some.

    Attributes:
        encoded: their tensors.
        order: which of them a step takes, and how many.
        weight: what they count in the loss of a step, all together.
        purpose: names their random numbers; those of one group do not depend on another.
    """

    encoded: EncodedRows
    order: EpochOrder
    weight: float = 1.0
    purpose: str = "batch"


def batch_groups(encoded: EncodedRows, prior: EncodedRows | None, config: ResolvedTraining) -> list[BatchGroup]:
    """The images of the collection, by their weights, and the prior images if there are any."""
    repeats = repeats_for([row.weight for row in encoded.rows])
    groups = [BatchGroup(encoded, EpochOrder(encoded.shapes(), config.batch_size, config.seed, repeats))]
    if prior is not None and config.prior_weight is not None:
        order = EpochOrder(prior.shapes(), config.prior_batch_size, config.seed)
        groups.append(BatchGroup(prior, order, config.prior_weight, purpose="prior"))
    return groups


@dataclass(frozen=True)
class _Seen:
    """One image as a step sees it."""

    latents: Tensor
    noise: Tensor
    timestep: Tensor
    conditioning: Mapping[str, Tensor]
    loss_weight: float
    group: int
    mask: Tensor | None


def draw_step(
    groups: Sequence[BatchGroup],
    config: ResolvedTraining,
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
    size = sum(group.order.batch_size for group in groups)
    share = range(process_index * size // num_processes, (process_index + 1) * size // num_processes)
    seen: list[_Seen] = []
    first = 0
    for number, group in enumerate(groups):
        count = group.order.batch_size
        ours = range(max(share.start - first, 0), min(share.stop - first, count))
        seen += _draw(group, number, config, step, objective, ours)
        first += count
    passes = _passes(range(len(seen)), [one.latents.shape for one in seen], micro_batch_size or size)
    return [_batch([seen[position] for position in positions], config, len(groups)) for positions in passes]


def _draw(
    group: BatchGroup, number: int, config: ResolvedTraining, step: int, objective: Objective, positions: range
) -> list[_Seen]:
    """The images at these positions of the group's part of a step."""
    encoded = group.encoded
    drawn = group.order.images_of(step)
    size = len(drawn)
    shapes = [encoded.resolutions[one.resolution].latents[encoded.rows[one.index].sha256].shape for one in drawn]
    generator = step_generator(config.seed, step, group.purpose)
    noise = _noise(shapes, generator, config.noise_offset)
    timesteps = objective.draw_timesteps(size, generator)
    caption_draw, dropout_draw, flip_draw = torch.rand(3, size, generator=generator).tolist()

    def see(position: int) -> _Seen:
        row, resolution = encoded.rows[drawn[position].index], encoded.resolutions[drawn[position].resolution]
        flipped = config.horizontal_flip and flip_draw[position] < 0.5
        mask = resolution.masks.get(row.sha256)
        dropped = dropout_draw[position] < config.caption_dropout or not row.captions
        caption = "" if dropped else row.captions[int(caption_draw[position] * len(row.captions))]
        return _Seen(
            latents=(resolution.mirrored if flipped else resolution.latents)[row.sha256],
            noise=noise[position],
            timestep=timesteps[position],
            conditioning=encoded.conditioning(row, drawn[position].resolution, caption),
            loss_weight=group.weight / size,
            group=number,
            mask=mask.flip(-1) if flipped and mask is not None else mask,
        )

    return [see(position) for position in positions]


def _batch(seen: Sequence[_Seen], config: ResolvedTraining, groups: int) -> Batch:
    position_weights = None
    if config.masked_weight is not None:
        whole = torch.ones(1, *seen[0].latents.shape[1:])  # what has no mask counts everywhere
        masks = [whole if one.mask is None else one.mask for one in seen]
        position_weights = mask_weights(masks, config.masked_weight)
    return Batch(
        latents=torch.stack([one.latents for one in seen]),
        noise=torch.stack([one.noise for one in seen]),
        timesteps=torch.stack([one.timestep for one in seen]),
        conditioning=stack_conditioning([one.conditioning for one in seen]),
        loss_weights=torch.tensor([one.loss_weight for one in seen]),
        groups=torch.tensor([one.group for one in seen]) if groups > 1 else None,
        position_weights=position_weights,
    )


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
