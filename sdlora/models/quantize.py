"""Hold a frozen denoiser's linear layers in 8 or 4 bits, so that a large base fits beside what is trained.

bitsandbytes computes with them, on CUDA and on a CPU: a weight is brought back to the arithmetic's precision where it
is used, forward and backward. peft puts its updates beside such layers, in full precision (QLoRA, Dettmers et al. 2023,
arXiv:2305.14314). diffusers' own loader for them refuses every machine without a GPU; here the layers are exchanged.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import nn

from sdlora.core.errors import ConfigError
from sdlora.core.refs import Precision, Quantization
from sdlora.models.precision import DTYPES

# LLM.int8() multiplies on a GPU in int8, and input columns with an entry beyond this in half precision (Dettmers et
# al. 2022, arXiv:2208.07339, its default).
_OUTLIER_THRESHOLD = 6.0


def require_quantizer(kind: Quantization) -> Any:
    """The library that computes with quantised weights.

    Raises:
        ConfigError: it is not installed; the message has the command that installs it.
    """
    try:
        return import_module("bitsandbytes")
    except ImportError as error:
        raise ConfigError(
            f"base_model.quantize: {kind} needs the package bitsandbytes, which is not installed ({error}). "
            "Install it with `pip install bitsandbytes`, or set base_model.quantize to null."
        ) from error


def quantize(denoiser: Any, kind: Quantization, precision: Precision, device: torch.device) -> Any:
    """Exchange the linear layers in the denoiser's blocks, in place; what is first and last in it stays as it is.

    Those others read the time, the latents and the text, and write the answer: few numbers, on which all others hang.
    Convolutions have no quantised form in the library.

    Args:
        denoiser: frozen, on the CPU; it is moved to `device` part by part, so that only one weight is there at a time
            before it is quantised.
        kind: "int8" is one byte a weight and a factor a row; "nf4" four bits, with a factor for each 64 weights, itself
            in eight bits.
        precision: the arithmetic of the layers.
        device: where the denoiser goes.

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
        quantized = _quantized(library, layer, kind, DTYPES[precision]).to(device)  # this is where bitsandbytes rounds
        setattr(denoiser.get_submodule(parent), child, quantized)
    # What peft looks at to choose its layers.
    denoiser.is_loaded_in_8bit, denoiser.is_loaded_in_4bit = kind == "int8", kind == "nf4"
    return denoiser.to(device)


def is_quantized(layer: nn.Module) -> bool:
    """Whether the layer's weight is held in another form than the numbers it stands for."""
    return isinstance(layer, nn.Linear) and not layer.weight.is_floating_point()


def _quantized(library: Any, layer: nn.Linear, kind: Quantization, dtype: torch.dtype) -> Any:
    with torch.device("meta"):  # the layer's own weight takes its place
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
            # With it, a measurement would repack the weights for a product that has no gradient, and training that goes
            # on after it would miss the gradients of all layers below (bitsandbytes 0.50, processors with AVX512-BF16).
            quantized.support_avx512bf16_for_cpu = False
    quantized.bias = layer.bias
    return quantized
