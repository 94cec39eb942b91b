"""Put trainable low-rank updates beside the layers of a frozen network."""

from __future__ import annotations

import peft
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from sdlora.lora.config import LoraConfig
from sdlora.lora.layers import ADAPTER_NAME
from sdlora.lora.targets import find_targets


def attach_lora(unet: UNet2DConditionModel, config: LoraConfig, seed: int = 0) -> UNet2DConditionModel:
    """Add an adapter that changes nothing yet: A is random from `seed`, B is zero. The network is changed in place.

    Afterwards the adapter's tensors, and only they, require gradients.

    Raises:
        TargetModuleError: a pattern matches no layer, or the rank is above a layer's width.
    """
    targets = find_targets(unet, config)
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(targets),
    )
    unet.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # peft draws A from the global generator
        unet.add_adapter(settings, adapter_name=ADAPTER_NAME)
    return unet


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable tensors by name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
