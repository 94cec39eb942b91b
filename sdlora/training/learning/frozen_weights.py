"""Frozen weights during training: their precision, and the LoRA update merged into them in the forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import Conv2d, Linear
from peft.tuners.tuners_utils import BaseTunerLayer as PeftLayer
from torch import Tensor, nn

from sdlora.core.refs import Precision
from sdlora.lora.layers import ADAPTER_NAME
from sdlora.models.precision import DTYPES
from sdlora.models.quantize import is_quantized


def cast_frozen_weights(denoiser: nn.Module, precision: Precision) -> None:
    """Cast the frozen linear and convolution weights to the precision of the arithmetic; the adapter stays fp32.

    Autocast would cast the same weights at every step. Cast once, the results have the same bits, a step takes about
    a tenth less time, and the base model needs half the memory. peft's cast of the layers' inputs to fp32 is switched
    off too, because autocast would cast them back.
    """
    if precision == "fp32":
        return
    for layer in denoiser.modules():
        if isinstance(layer, PeftLayer):
            layer.cast_input_dtype_enabled = False
        elif is_quantized(layer):
            continue  # the layer casts its own bias to the dtype of the inputs
        elif isinstance(layer, nn.Linear | nn.Conv2d) and not any(p.requires_grad for p in layer.parameters()):
            layer.to(DTYPES[precision])


# In larger networks multiplications dominate a step, and the gradient of a full weight needs more of them than those of
# A and B. All merged weights would also be in memory together. The embedded base has 11 million weights.
MAX_WEIGHTS = 32_000_000
# The weights of small layers are merged in groups. The gradients of a group are held until its first layer has its own:
# half a MiB in bf16.
_MAX_WEIGHTS_OF_SMALL_LAYER = 2**16
_MAX_WEIGHTS_PER_GROUP = 2**18


def fuse_lora_in_forward(network: nn.Module) -> int:
    """Speed up LoRA training on a CPU: compute with merged weights W + (alpha / rank) B A; returns the layer count.

    The function of A and B stays the same; the cost changes. A layer needs one product instead of three, forward and
    backward (all layers, rank 16, bf16: 0.84 of the time of a step). Small layers of one shape are merged together at
    the start of a forward pass (rank 4 on attention: 0.95). In bf16 the merged weight is rounded like any weight, as
    in a merged model.

    Left as they are: networks with more than `MAX_WEIGHTS` adapted weights, networks on a GPU, and layers whose
    update needs its own inputs (dropout, DoRA, other methods).
    """
    layers: list[Any] = [layer for layer in network.modules() if _mergeable(layer)]
    weights = sum(layer.get_base_layer().weight.numel() for layer in layers)
    if weights > MAX_WEIGHTS or any(layer.get_base_layer().weight.device.type != "cpu" for layer in layers):
        return 0
    groups = list(_groups(layer for layer in layers if layer.base_layer.weight.numel() <= _MAX_WEIGHTS_OF_SMALL_LAYER))
    merged: dict[nn.Module, Tensor] = {}  # of small layers, recomputed in every forward pass
    for number, group in enumerate(groups):
        network.register_buffer(_frozen_name(number), _stack_frozen(group), persistent=False)

    def merge(network: nn.Module, _inputs: Any) -> None:
        for number, group in enumerate(groups):
            merged.update(zip(group, _merged_weights(group, getattr(network, _frozen_name(number))), strict=True))

    def forward(layer: Any, inputs: Tensor) -> Tensor:
        frozen: nn.Linear | nn.Conv2d = layer.base_layer
        weight = (merged[layer] if layer in merged else _merged_weight(layer)).view(frozen.weight.shape)
        if isinstance(frozen, nn.Linear):
            return nn.functional.linear(inputs, weight, frozen.bias)
        outputs: Tensor = frozen._conv_forward(inputs, weight, frozen.bias)
        return outputs

    network.register_forward_pre_hook(merge)
    for layer in layers:
        layer.forward = MethodType(forward, layer)
    return len(layers)


def _mergeable(layer: Any) -> bool:
    if not isinstance(layer, Linear | Conv2d) or layer.lora_variant or getattr(layer.get_base_layer(), "groups", 1) > 1:
        return False
    return isinstance(layer.lora_dropout[ADAPTER_NAME], nn.Identity)


def _groups(layers: Iterable[Any]) -> Iterator[list[Any]]:
    """Group layers that one product of stacked matrices can merge, in the order of the network."""
    by_kind: dict[tuple[Any, ...], list[Any]] = {}
    for layer in layers:
        weight, down = layer.base_layer.weight, layer.lora_A[ADAPTER_NAME].weight
        kind = (weight.flatten(1).shape, weight.dtype, down.shape[0], layer.scaling[ADAPTER_NAME])
        by_kind.setdefault(kind, []).append(layer)
    for (shape, *_), same_kind in by_kind.items():
        count = max(1, _MAX_WEIGHTS_PER_GROUP // shape.numel())
        yield from (same_kind[start : start + count] for start in range(0, len(same_kind), count))


def _frozen_name(number: int) -> str:
    return f"merged_frozen_{number}"


def _stack_frozen(group: Sequence[Any]) -> Tensor:
    """Stack frozen weights to (N, out, in); the layers' weights become views of the stack, without copies."""
    stacked = torch.stack([layer.base_layer.weight.detach().flatten(1) for layer in group])
    for layer, weight in zip(group, stacked, strict=True):
        layer.base_layer.weight.data = weight.view(layer.base_layer.weight.shape)
    return stacked


def _merged_weight(layer: Any) -> Tensor:
    """Compute W + (alpha / rank) B A, (out, in), in the precision of autocast if it is active."""
    up, down = layer.lora_B[ADAPTER_NAME].weight.flatten(1), layer.lora_A[ADAPTER_NAME].weight.flatten(1)
    return torch.addmm(layer.base_layer.weight.flatten(1), up, down, alpha=layer.scaling[ADAPTER_NAME])


def _merged_weights(group: Sequence[Any], frozen: Tensor) -> tuple[Tensor, ...]:
    """Compute the merged weights of layers of one shape from their stacked frozen weights."""
    ups = torch.stack([layer.lora_B[ADAPTER_NAME].weight.flatten(1) for layer in group])  # (N, out, rank)
    downs = torch.stack([layer.lora_A[ADAPTER_NAME].weight.flatten(1) for layer in group])  # (N, rank, in)
    merged = torch.baddbmm(frozen, ups, downs, alpha=group[0].scaling[ADAPTER_NAME])
    return merged.unbind()
