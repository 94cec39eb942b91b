"""Forward, backward and optimiser step of a LoRA on tensors in memory, without the loop around them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from sdlora.core.refs import BaseModelRef, Precision
from sdlora.lora.attach import adapter_parameters, attach_lora
from sdlora.lora.config import ResolvedLora
from sdlora.models import parts
from sdlora.models.families.layouts import read_json
from sdlora.models.precision import autocast
from sdlora.training.learning.frozen_weights import cast_frozen_weights, fuse_lora_in_forward


class BareStep:
    """The arithmetic of a step, on the network that sdlora trains: same precision of weights, same attention.

    No clipping, no schedule, no report, no check, no checkpoint, one fixed batch of random tensors.

    Args:
        same_arithmetic: True merges the adapter into the weights as sdlora's loop does, so the time is the least that
            the loop can take. False leaves peft's own layers, three products each: what a script with peft takes.
    """

    def __init__(
        self,
        base: BaseModelRef,
        lora: ResolvedLora,
        precision: Precision,
        batch_size: int,
        *,
        same_arithmetic: bool,
    ) -> None:
        self.precision = precision
        self.unet = attach_lora(parts.load_denoiser(base), lora).train()
        cast_frozen_weights(self.unet, precision)
        if same_arithmetic:
            fuse_lora_in_forward(self.unet)
        config = self.unet.config
        generator = torch.Generator().manual_seed(0)
        shape = (batch_size, config.in_channels, config.sample_size, config.sample_size)
        self.noisy, self.target = (torch.randn(shape, generator=generator) for _ in range(2))
        self.timesteps = torch.randint(0, 1000, (batch_size,), generator=generator)
        tokens = read_json(base.folder / "text_encoder" / "config.json")["max_position_embeddings"]
        self.embeddings = torch.randn(batch_size, tokens, config.cross_attention_dim, generator=generator)
        self.optimizer = torch.optim.AdamW(list(adapter_parameters(self.unet).values()), lr=1e-4, fused=True)

    def __call__(self) -> Tensor:
        with autocast("cpu", self.precision):
            prediction = self.unet(self.noisy, self.timesteps, self.embeddings, return_dict=False)[0]
        loss = mse_loss(prediction.float(), self.target)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss
