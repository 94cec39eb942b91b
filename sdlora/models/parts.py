"""Parts of a base model, loaded one by one, so that training can free an encoder after use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors import safe_open
from torch import nn

from sdlora.core.errors import WeightsError
from sdlora.core.quoting import escaped
from sdlora.core.refs import BaseModelRef, Precision, Quantization
from sdlora.models.families import family_of, sizes
from sdlora.models.families.base import TextPart
from sdlora.models.families.layouts import find_layout
from sdlora.models.files.folder_check import weights_files, weights_variant
from sdlora.models.outline import checked_outline
from sdlora.models.precision import DTYPES
from sdlora.models.progress_bars import no_progress_bars
from sdlora.models.quantize import quantize

# Up to this many latent positions, plain attention is faster on a CPU than the fused kernel, forward and backward
# (16x16 positions, 2 cores: 17 against 50 ms a layer). Beyond it, the attention matrices would fill the memory.
PLAIN_ATTENTION_POSITIONS = 1024


def load_denoiser(
    ref: BaseModelRef,
    device: torch.device | None = None,
    precision: Precision = "fp32",
    quantization: Quantization | None = None,
) -> Any:
    """Load the frozen denoiser in fp32, with the faster attention for the device.

    For bf16 or fp16 arithmetic, linear and convolution weights that are stored in this precision keep it. Autocast
    would round them back to the same bits, and a model of twelve billion parameters never takes twice its size. With
    `quantization`, which only training uses, most linear layers are held in fewer bits; see `sdlora.models.quantize`.

    Raises:
        WeightsError: a file is missing, damaged, or does not match the settings.
        ConfigError: `quantization` is set and its library is not installed.
    """
    family = family_of(ref.folder)
    part = family.layout.denoiser
    as_stored = precision != "fp32" and all_stored_in(precision, weights_files(ref.folder, part))
    load_device = None if quantization else device  # `quantize` moves the layers to the device
    denoiser = _load_weights(
        family.denoiser_class, ref, part, load_device, DTYPES[precision] if as_stored else torch.float32
    )
    if as_stored:
        for module in denoiser.modules():
            if not isinstance(module, nn.Linear | nn.Conv2d):
                for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                    tensor.data = tensor.data.float()
    if quantization:
        denoiser = quantize(denoiser, quantization, precision, device or torch.device("cpu"))
    unet_on_cpu = isinstance(denoiser, UNet2DConditionModel) and denoiser.device.type == "cpu"
    if unet_on_cpu and denoiser.config.sample_size**2 <= PLAIN_ATTENTION_POSITIONS:
        denoiser.set_attn_processor(AttnProcessor())
    return denoiser


def denoiser_outline(ref: BaseModelRef) -> Any:
    """Build the denoiser's layers and shapes on the meta device, without memory for weights, to check settings.

    Raises:
        WeightsError: the settings do not match the weights' files.
    """
    family = family_of(ref.folder)
    return checked_outline(family.denoiser_class, ref.folder, family.layout.denoiser)


def load_autoencoder(ref: BaseModelRef, device: torch.device | None = None) -> AutoencoderKL:
    """Load the frozen autoencoder in fp32."""
    autoencoder: AutoencoderKL = _load_weights(AutoencoderKL, ref, "vae", device)
    return autoencoder


def load_text_encoder(ref: BaseModelRef, part: TextPart, device: torch.device | None = None) -> nn.Module:
    """Load one frozen text encoder in fp32."""
    encoder: nn.Module = _load_weights(part.encoder_class, ref, part.folder, device, attn_implementation="eager")
    return encoder


def load_tokenizer(ref: BaseModelRef, part: TextPart) -> Any:
    return _load_without_weights(ref, part.tokenizer_folder, part.tokenizer_class)


def load_scheduler(ref: BaseModelRef) -> Any:
    """Load the scheduler, which holds the noise schedule that the base was trained with."""
    return _load_without_weights(ref, "scheduler", family_of(ref.folder).scheduler_class)


def native_resolution(ref: BaseModelRef) -> int:
    """Return the side of the images that the base was trained on, in pixels."""
    return sizes.native_resolution(ref.folder, find_layout(ref.folder))


def _load_without_weights(ref: BaseModelRef, part: str, part_class: Any) -> Any:
    try:
        return part_class.from_pretrained(str(ref.folder / part), local_files_only=True)
    except Exception as error:  # tokenizers and schedulers raise many exception classes on a damaged file
        raise WeightsError(_load_failure(ref, part, error)) from error


def all_stored_in(precision: Precision, files: Sequence[Path]) -> bool:
    """Check that every tensor of the safetensors files is stored in one precision."""
    name = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}[precision]
    for path in files:
        with safe_open(path, framework="pt") as file:
            if any(file.get_slice(key).get_dtype() != name for key in file.keys()):  # noqa: SIM118
                return False
    return True


def _load_weights(
    part_class: Any,
    ref: BaseModelRef,
    part: str,
    device: torch.device | None,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Any:
    checked_outline(part_class, ref.folder, part)
    try:
        with no_progress_bars():
            module, report = part_class.from_pretrained(
                str(ref.folder / part),
                use_safetensors=True,
                variant=weights_variant(ref.folder, part),
                torch_dtype=dtype,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
    except WeightsError:
        raise
    except Exception as error:  # a damaged file raises OSError, ValueError, RuntimeError or SafetensorError
        raise WeightsError(_load_failure(ref, part, error)) from error
    # diffusers and transformers fill a missing tensor with random numbers and only log it.
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        path = weights_files(ref.folder, part)[0]
        raise WeightsError(
            f"base_model.source: {path} lacks {len(missing)} tensors that {part}/config.json asks for "
            f"(first: {missing[0]}). The weights and the settings belong to different models; copy the folder again."
        )
    return module.to(device or torch.device("cpu")).eval().requires_grad_(False)


def _load_failure(ref: BaseModelRef, part: str, error: Exception) -> str:
    return (
        f"base_model.source: {ref.folder / part} cannot be loaded ({type(error).__name__}: {escaped(error)}). "
        "Copy the model folder again."
    )
