"""Let a small network compute with W + (alpha / rank) B A, one weight per layer, while A and B are trained."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import Conv2d, Linear
from torch import Tensor, nn

from sdlora.lora.layers import ADAPTER_NAME

# Above it, a step is bound by its multiplications, of which the gradient of a whole weight needs more than those of A
# and B, and the sums would be held for all layers at once. The embedded base has 11 million.
MOST_WEIGHTS = 32_000_000


def merge_as_used(network: nn.Module) -> int:
    """Add the update to the weight instead of running it beside the layer; returns how many layers do so now.

    It is the same function of A and B. What changes is the cost on a CPU: one product instead of three, forward and
    backward (all layers, rank 16, bf16: 0.84 of the time of a step). In bf16 the sum is rounded like any weight,
    as it is when the merged model draws. Nothing is done in a network with more than `MOST_WEIGHTS` adapted weights, on
    a GPU, or in a layer whose update needs its own inputs: dropout, DoRA, other kinds of update.
    """
    layers: list[Any] = [layer for layer in network.modules() if _mergeable(layer)]
    weights = sum(layer.get_base_layer().weight.numel() for layer in layers)
    if weights > MOST_WEIGHTS or any(layer.get_base_layer().weight.device.type != "cpu" for layer in layers):
        return 0
    for layer in layers:
        layer.forward = MethodType(_merged_forward, layer)
    return len(layers)


def _mergeable(layer: Any) -> bool:
    if not isinstance(layer, Linear | Conv2d) or layer.lora_variant or getattr(layer.get_base_layer(), "groups", 1) > 1:
        return False
    return isinstance(layer.lora_dropout[ADAPTER_NAME], nn.Identity)


def _merged_forward(layer: Any, inputs: Tensor) -> Tensor:
    frozen: nn.Linear | nn.Conv2d = layer.base_layer
    up, down = layer.lora_B[ADAPTER_NAME].weight, layer.lora_A[ADAPTER_NAME].weight
    merged = torch.addmm(frozen.weight.flatten(1), up.flatten(1), down.flatten(1), alpha=layer.scaling[ADAPTER_NAME])
    merged = merged.view(frozen.weight.shape)
    outputs: Tensor
    if isinstance(frozen, nn.Linear):
        outputs = nn.functional.linear(inputs, merged, frozen.bias)
    else:
        outputs = frozen._conv_forward(inputs, merged, frozen.bias)
    return outputs
