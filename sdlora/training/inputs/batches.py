"""Batches of a step: latents, noise, timesteps and captions of images that go through the network together."""

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
        conditioning: further inputs of the denoiser, by the names of its `forward`; (B, ...) each.
        loss_weights: (B,) each image's share of the step's loss; by default equal shares that sum to 1.
        groups: (B,) int64, the number of each image's group; None if the step has one group.
        position_weights: (B, 1, h, w) weights of the error's positions, with a mean of 1 per image; by default
            equal.
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
    """Group of images; every step takes some of them.

    Attributes:
        encoded: the tensors of the images.
        order: the images of each step.
        weight: the group's total weight in the loss of a step.
        purpose: name of the random stream; each group has a stream of its own.
    """

    encoded: EncodedRows
    order: EpochOrder
    weight: float = 1.0
    purpose: str = "batch"


def batch_groups(encoded: EncodedRows, prior: EncodedRows | None, config: ResolvedTraining) -> list[BatchGroup]:
    """Return the group of training images, repeated by weight, and the group of prior images if there is one."""
    repeats = repeats_for([row.weight for row in encoded.rows])
    groups = [BatchGroup(encoded, EpochOrder(encoded.shapes(), config.batch_size, config.seed, repeats))]
    if prior is not None and config.prior_weight is not None:
        order = EpochOrder(prior.shapes(), config.prior_batch_size, config.seed)
        groups.append(BatchGroup(prior, order, config.prior_weight, purpose="prior"))
    return groups


@dataclass(frozen=True)
class _DrawnImage:
    """Image of a step with everything drawn for it."""

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
    """Draw one process's share of a step, as batches of one shape with at most `micro_batch_size` images.

    All random numbers are drawn for the whole step; each process then takes its slice. The images, noise and
    timesteps of a step therefore do not depend on the number of processes or the batch size.
    """
    size = sum(group.order.batch_size for group in groups)
    share = range(process_index * size // num_processes, (process_index + 1) * size // num_processes)
    images: list[_DrawnImage] = []
    start = 0
    for number, group in enumerate(groups):
        count = group.order.batch_size
        positions = range(max(share.start - start, 0), min(share.stop - start, count))
        images += _draw(group, number, config, step, objective, positions)
        start += count
    passes = _passes(range(len(images)), [image.latents.shape for image in images], micro_batch_size or size)
    return [_batch([images[index] for index in indices], config, len(groups)) for indices in passes]


def _draw(
    group: BatchGroup, number: int, config: ResolvedTraining, step: int, objective: Objective, positions: range
) -> list[_DrawnImage]:
    """Draw the images at these positions of the group's share of a step."""
    encoded = group.encoded
    step_images = group.order.images_of(step)
    size = len(step_images)
    shapes = [
        encoded.resolutions[image.resolution].latents[encoded.rows[image.index].sha256].shape for image in step_images
    ]
    generator = step_generator(config.seed, step, group.purpose)
    noise = _noise(shapes, generator, config.noise_offset)
    timesteps = objective.draw_timesteps(size, generator)
    caption_draw, dropout_draw, flip_draw = torch.rand(3, size, generator=generator).tolist()

    def draw(position: int) -> _DrawnImage:
        image = step_images[position]
        row, resolution = encoded.rows[image.index], encoded.resolutions[image.resolution]
        flipped = config.horizontal_flip and flip_draw[position] < 0.5
        mask = resolution.masks.get(row.sha256)
        dropped = dropout_draw[position] < config.caption_dropout or not row.captions
        caption = "" if dropped else row.captions[int(caption_draw[position] * len(row.captions))]
        return _DrawnImage(
            latents=(resolution.mirrored if flipped else resolution.latents)[row.sha256],
            noise=noise[position],
            timestep=timesteps[position],
            conditioning=encoded.conditioning(row, image.resolution, caption),
            loss_weight=group.weight / size,
            group=number,
            mask=mask.flip(-1) if flipped and mask is not None else mask,
        )

    return [draw(position) for position in positions]


def _batch(images: Sequence[_DrawnImage], config: ResolvedTraining, group_count: int) -> Batch:
    position_weights = None
    if config.masked_weight is not None:
        full_mask = torch.ones(1, *images[0].latents.shape[1:])  # an image without a mask counts everywhere
        masks = [full_mask if image.mask is None else image.mask for image in images]
        position_weights = mask_weights(masks, config.masked_weight)
    return Batch(
        latents=torch.stack([image.latents for image in images]),
        noise=torch.stack([image.noise for image in images]),
        timesteps=torch.stack([image.timestep for image in images]),
        conditioning=stack_conditioning([image.conditioning for image in images]),
        loss_weights=torch.tensor([image.loss_weight for image in images]),
        groups=torch.tensor([image.group for image in images]) if group_count > 1 else None,
        position_weights=position_weights,
    )


def stack_conditioning(conditionings: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Stack the conditioning of several images into one batch."""
    return {name: torch.stack([conditioning[name] for conditioning in conditionings]) for name in conditionings[0]}


def _passes(positions: range, shapes: Sequence[torch.Size], max_images: int) -> list[list[int]]:
    """Split positions into passes through the network: one shape and at most `max_images` each."""
    by_shape: dict[torch.Size, list[int]] = {}
    for position in positions:
        by_shape.setdefault(shapes[position], []).append(position)
    return [
        alike[start : start + max_images] for alike in by_shape.values() for start in range(0, len(alike), max_images)
    ]


def _noise(shapes: Sequence[torch.Size], generator: torch.Generator, offset: float) -> list[Tensor]:
    """Draw the noise of each image of the step, shape by shape."""
    noise: dict[int, Tensor] = {}
    for positions in _passes(range(len(shapes)), shapes, len(shapes)):
        batch = draw_noise((len(positions), *shapes[positions[0]]), generator, offset)
        noise |= dict(zip(positions, batch, strict=True))
    return [noise[position] for position in range(len(shapes))]
