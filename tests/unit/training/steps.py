"""The tensors of one step, and what differentiating them gives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdlora.core.refs import BaseModelRef
from sdlora.diffusion.objectives import Objective
from sdlora.lora.attach import adapter_parameters
from sdlora.models.precision import Precision
from sdlora.training.inputs.batches import Batch, stack_conditioning
from sdlora.training.inputs.encoded import EncodedRows
from sdlora.training.learning.loss import DenoisingLoss


def tiny_batch() -> Batch:
    """Three random images for the tiny base, from no noise to nothing else."""
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 3, 4, 16, 16, generator=generator)
    text = torch.randn(3, 32, 16, generator=generator)
    return Batch(latents, noise, torch.tensor([0, 500, 999]), {"encoder_hidden_states": text})


def batch_of(encoded: EncodedRows, objective: Objective, size: int = 4) -> Batch:
    """One batch of the first images with their first captions."""
    rows = encoded.rows[:size]
    latents = torch.stack([encoded.resolutions[0].latents[row.sha256] for row in rows])
    generator = torch.Generator().manual_seed(0)
    return Batch(
        latents=latents,
        noise=torch.randn(latents.shape, generator=generator),
        timesteps=objective.draw_timesteps(size, generator),
        conditioning=stack_conditioning([encoded.conditioning(row, 0, row.captions[0]) for row in rows]),
    )


def moved(network: Any, scale: float = 0.1) -> Any:
    """The network with every tensor of its adapter moved from its start, always by the same."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in adapter_parameters(network).values():
            tensor.add_(torch.randn(tensor.shape, generator=generator) * scale)
    return network


def loss_and_gradient(base: BaseModelRef, network: Any, precision: Precision) -> tuple[Tensor, Tensor]:
    """Of the tiny batch: the loss, and the gradients of the adapter one after the other."""
    network.zero_grad()
    value = DenoisingLoss.of_base(base, 5.0, precision, torch.device("cpu")).weighted(network, tiny_batch())
    value.backward()
    return value.detach(), torch.cat([tensor.grad.flatten() for tensor in adapter_parameters(network).values()])
