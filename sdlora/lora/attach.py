"""Attachment of a trainable adapter to a frozen network."""

from __future__ import annotations

from typing import Any

import peft
import torch
from torch import nn

from sdlora.lora.config import ResolvedLora
from sdlora.lora.layers import ADAPTER_NAME, START_DOWN, START_UP, adapted_layers
from sdlora.lora.targets import find_targets


def attach_lora(network: Any, config: ResolvedLora, seed: int = 0) -> Any:
    """Attach an adapter that initially changes nothing: its factors are random from `seed`, except one of zeros.

    PiSSA has no factor of zeros: its factors hold a part of each weight, which is subtracted from the frozen weight.
    The network (a diffusers denoiser) is changed in place and returned. Afterwards only the adapter's tensors require
    gradients.

    Raises:
        TargetModuleError: a pattern matches no layer, the method cannot change a matched layer, or the rank is above
            a layer's width.
    """
    targets = find_targets(network, config)
    network.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # peft draws the factors from the global generator
        network.add_adapter(peft_settings(config, list(targets)), adapter_name=ADAPTER_NAME)
    for parameter in adapter_parameters(network).values():
        parameter.data = parameter.data.float()  # peft uses the precision of the layer, which may be bf16
    if config.method == "pissa":
        for layer in adapted_layers(network).values():
            layer.register_buffer(START_DOWN, layer.lora_A[ADAPTER_NAME].weight.detach().clone(), persistent=False)
            layer.register_buffer(START_UP, layer.lora_B[ADAPTER_NAME].weight.detach().clone(), persistent=False)
    return network


def peft_settings(config: ResolvedLora, target_modules: list[str]) -> Any:
    """Convert the settings to a peft configuration."""
    if config.method == "loha":
        return peft.LoHaConfig(r=config.rank, alpha=config.alpha, target_modules=target_modules)
    if config.method == "lokr":
        return peft.LoKrConfig(r=config.rank, alpha=config.alpha, target_modules=target_modules)
    return peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=target_modules,
        use_rslora=config.method == "rslora",
        use_dora=config.method == "dora",
        init_lora_weights="pissa" if config.method == "pissa" else True,
    )


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable tensors by name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
