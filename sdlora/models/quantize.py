"""Quantisation of a frozen denoiser's linear layers to 8 or 4 bits, which saves memory in training.

bitsandbytes computes with quantised layers on CUDA and on a CPU: forward and backward dequantise a weight to the
precision of the arithmetic. peft attaches updates in full precision to such layers (QLoRA, Dettmers et al. 2023,
arXiv:2305.14314). The layers are replaced here, because diffusers' own loader refuses machines without a GPU.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import nn

from sdlora.core.errors import ConfigError
from sdlora.core.refs import Precision, Quantization
from sdlora.models.precision import DTYPES

# On a GPU, LLM.int8() multiplies in int8, except input columns with an entry beyond this threshold, which stay in half
# precision. The value is the default of Dettmers et al. 2022, arXiv:2208.07339.
_OUTLIER_THRESHOLD = 6.0


def require_quantizer(kind: Quantization) -> Any:
    """Import bitsandbytes, the library that computes with quantised weights.

    Raises:
        ConfigError: bitsandbytes is not installed; the message has the command that installs it.
    """
    try:
        return import_module("bitsandbytes")
    except ImportError as error:
        raise ConfigError(
            f"base_model.quantize: {kind} needs the package bitsandbytes, which is not installed ({error}). "
            "Install it with `pip install bitsandbytes`, or set base_model.quantize to null."
        ) from error


def quantize(denoiser: Any, kind: Quantization, precision: Precision, device: torch.device) -> Any:
    """Replace the linear layers in the denoiser's blocks by quantised layers, in place.

    Layers outside the blocks embed the timestep, the latents and the text, and compute the output. They have few
    weights, on which all others depend, so they stay unquantised. The library has no quantised convolutions.

    Args:
        denoiser: frozen denoiser on the CPU. Its layers are moved to `device` one by one, so that at most one
            unquantised weight is on the device.
        kind: "int8" has one byte per weight and a factor per row. "nf4" has four bits per weight and a factor per 64
            weights; the factor has eight bits.
        precision: precision of the layers' arithmetic.
        device: target device of the denoiser.

    Raises:
        ConfigError: the library is not installed.
    """
    library = require_quantizer(kind)
    layers = [
        (name, layer)
        for name, layer in denoiser.named_modules()
        if type(layer) is nn.Linear and name.split(".", 1)[0].endswith(("block", "blocks"))
    ]
    for name, layer in layers:
        parent, _, child = name.rpartition(".")
        quantized = _quantized(library, layer, kind, DTYPES[precision]).to(device)  # bitsandbytes quantises here
        setattr(denoiser.get_submodule(parent), child, quantized)
    # peft chooses its layer classes by these attributes.
    denoiser.is_loaded_in_8bit, denoiser.is_loaded_in_4bit = kind == "int8", kind == "nf4"
    return denoiser.to(device)


def is_quantized(layer: nn.Module) -> bool:
    """Check whether the layer's weight is quantised."""
    return isinstance(layer, nn.Linear) and not layer.weight.is_floating_point()


def _quantized(library: Any, layer: nn.Linear, kind: Quantization, dtype: torch.dtype) -> Any:
    with torch.device("meta"):  # no memory: the layer's own weight is assigned below
        if kind == "int8":
            quantized = library.nn.Linear8bitLt(
                layer.in_features, layer.out_features, False, has_fp16_weights=False, threshold=_OUTLIER_THRESHOLD
            )
            quantized.weight = library.nn.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
        else:
            quantized = library.nn.Linear4bit(
                layer.in_features, layer.out_features, False, compute_dtype=dtype, quant_type="nf4"
            )
            quantized.weight = library.nn.Params4bit(
                layer.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True, module=quantized
            )
            # If this stayed on, a validation would repack the weights for a product without a gradient. Training after
            # the validation would lose the gradients of all earlier layers (bitsandbytes 0.50, AVX512-BF16 processors).
            quantized.support_avx512bf16_for_cpu = False
    quantized.bias = layer.bias
    return quantized
