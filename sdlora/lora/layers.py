"""Conversion of peft's layers to plain updates, and comparison of a written file with these updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from peft.tuners.loha import LoHaLayer
from peft.tuners.lokr import LoKrLayer
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn

from sdlora.core.errors import WeightsError
from sdlora.lora.formats.reading import Change
from sdlora.lora.updates import DecomposedUpdate, HadamardUpdate, KroneckerUpdate, LayerUpdate, LowRankUpdate
from sdlora.models.quantize import is_quantized

ADAPTER_NAME = "default"
# Buffers with the initial factors of PiSSA, whose adapter starts with a part of the weight.
START_DOWN, START_UP = "sdlora_start_down", "sdlora_start_up"

_HADAMARD_FACTORS = ("w1_a", "w1_b", "w2_a", "w2_b")
# Products of the same fp32 factors in another order differ by rounding.
_TOLERANCE = 1e-5


def adapted_layers(model: nn.Module) -> dict[str, Any]:
    """Return peft's layers by the full name of the wrapped layer, in the model's order."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)}


def collect_updates(model: nn.Module) -> dict[str, LayerUpdate]:
    """Collect the updates of all adapted layers by full layer name, on the CPU in fp32.

    Raises:
        WeightsError: the model has no adapter.
    """
    updates = {name: _update(layer) for name, layer in adapted_layers(model).items()}
    if not updates:
        raise WeightsError(f"This {type(model).__name__} has no adapter to save. Call attach_lora first.")
    return updates


def base_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the frozen weights of the adapted layers by full layer name, without a copy.

    A quantised layer gives a tensor of zeros in its shape, unless the update needs the weight, like DoRA.
    """
    return {name: _base_weight(layer) for name, layer in adapted_layers(model).items()}


def require_equal(
    read_back: Mapping[str, Change], expected: Mapping[str, LayerUpdate], weights: Mapping[str, Tensor], file: str
) -> None:
    """Compare the changes that a file makes to each weight with the updates that were written.

    Args:
        read_back: changes by layer name, as other tools read them from the file.
        expected: updates by layer name.
        weights: weights of the base by layer name.
        file: file name for the error message.

    Raises:
        WeightsError: a layer is missing, unexpected or different.
    """
    differing = differing_layer(read_back, expected, weights)
    if differing is not None:
        raise WeightsError(
            f"{file} does not hold the adapter that was written: layer {differing} differs. It was removed."
        )


def differing_layer(
    read_back: Mapping[str, Change], expected: Mapping[str, LayerUpdate], weights: Mapping[str, Tensor]
) -> str | None:
    """Return the first layer whose change is missing, unexpected or different; None if all are equal.

    The arguments are those of `require_equal`.
    """
    if read_back.keys() != expected.keys():
        return min(read_back.keys() ^ expected.keys())
    for name, update in expected.items():
        weight = weights[name].detach().to("cpu", torch.float32)
        expected_change = update.change(weight)
        # The tolerance is relative to the largest entry. DoRA rescales the weight itself, so its entries count too.
        largest_entry = max(
            expected_change.abs().max().item(), weight.abs().max().item() if "dora_scale" in update.tensors() else 0.0
        )
        if not torch.allclose(read_back[name](weight), expected_change, rtol=0, atol=_TOLERANCE * largest_entry):
            return name
    return None


def _base_weight(layer: Any) -> Tensor:
    frozen = layer.get_base_layer()
    if not is_quantized(frozen):
        weight: Tensor = frozen.weight
    elif layer.lora_magnitude_vector:
        weight = dequantize_module_weight(frozen).detach().cpu()  # the CPU has more memory for full weights
    else:
        weight = torch.zeros(()).expand(frozen.out_features, frozen.in_features)
    return weight


def _update(layer: Any) -> LayerUpdate:
    if isinstance(layer, LoraLayer):
        return _low_rank_update(layer)
    if isinstance(layer, LoHaLayer):
        factors = {factor: _cpu_fp32(getattr(layer, f"hada_{factor}")[ADAPTER_NAME]) for factor in _HADAMARD_FACTORS}
        return HadamardUpdate(**factors, alpha=float(layer.alpha[ADAPTER_NAME]))
    if isinstance(layer, LoKrLayer):
        has_full_w2 = ADAPTER_NAME in layer.lokr_w2
        return KroneckerUpdate(
            w1=_cpu_fp32(layer.lokr_w1[ADAPTER_NAME]),
            w2=_cpu_fp32(layer.lokr_w2[ADAPTER_NAME])
            if has_full_w2
            else (_cpu_fp32(layer.lokr_w2_a[ADAPTER_NAME]), _cpu_fp32(layer.lokr_w2_b[ADAPTER_NAME])),
            alpha=float(layer.alpha[ADAPTER_NAME]),
            requested_rank=int(layer.r[ADAPTER_NAME]),
        )
    raise WeightsError(f"An adapter of kind {type(layer).__name__} cannot be saved; sdlora did not attach it.")


def _low_rank_update(layer: Any) -> LowRankUpdate:
    down, up = _cpu_fp32(layer.lora_A[ADAPTER_NAME].weight), _cpu_fp32(layer.lora_B[ADAPTER_NAME].weight)
    # alpha follows from the active scale, so that rsLoRA's alpha / sqrt(rank) becomes a plain LoRA's alpha / rank.
    scale = float(layer.scaling[ADAPTER_NAME])
    if hasattr(layer, START_DOWN):
        # The residual W - s B0 A0 with s B A equals W + s (B A - B0 A0): a plain LoRA of twice the rank on the original
        # weight. peft's PiSSA example converts it in the same way.
        down = torch.cat((down, _cpu_fp32(getattr(layer, START_DOWN))))
        up = torch.cat((up, -_cpu_fp32(getattr(layer, START_UP))), dim=1)
    alpha = scale * down.shape[0]
    if ADAPTER_NAME in layer.lora_magnitude_vector:
        magnitude = _cpu_fp32(layer.lora_magnitude_vector[ADAPTER_NAME].weight).flatten()
        return DecomposedUpdate(down, up, alpha, magnitude)
    return LowRankUpdate(down, up, alpha)


def _cpu_fp32(weight: Tensor) -> Tensor:
    return weight.detach().to("cpu", torch.float32).contiguous()
