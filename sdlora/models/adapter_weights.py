"""Read an adapter file the way its users do: by diffusers where it can, else by peft."""

from __future__ import annotations

import json
from pathlib import Path

import peft
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from torch import Tensor

from sdlora.errors import WeightsError

ADAPTER_WEIGHTS = "pytorch_lora_weights.safetensors"
_PREFIX = "unet."


def attach_adapter_file(unet: UNet2DConditionModel, folder: Path) -> None:
    """Put the adapter of `folder/pytorch_lora_weights.safetensors` beside the weights of `unet`, in place.

    diffusers reads LoRA, DoRA and LoKr; LoHa it does not know, peft does.

    Raises:
        WeightsError: the file does not fit the network.
    """
    try:
        if any(".hada_" in key for key in _keys(folder / ADAPTER_WEIGHTS)):
            _attach_by_peft(unet, folder / ADAPTER_WEIGHTS)
        else:
            _attach_by_diffusers(unet, folder)
    except Exception as error:  # a wrong shape or key surfaces as RuntimeError, ValueError or KeyError
        raise WeightsError(f"The adapter in {folder} cannot be loaded ({type(error).__name__}: {error}).") from error


def _attach_by_diffusers(unet: UNet2DConditionModel, folder: Path) -> None:
    tensors, alphas, settings = StableDiffusionPipeline.lora_state_dict(
        str(folder),
        weight_name=ADAPTER_WEIGHTS,
        use_safetensors=True,
        local_files_only=True,
        return_lora_metadata=True,
    )
    StableDiffusionPipeline.load_lora_into_unet(tensors, alphas, unet, metadata=settings)


def _attach_by_peft(unet: UNet2DConditionModel, path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        packed = json.loads(file.metadata()["lora_adapter_metadata"])
        tensors: dict[str, Tensor] = {key.removeprefix(_PREFIX): file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    unet.add_adapter(peft.LoHaConfig(**{key.removeprefix(_PREFIX): value for key, value in packed.items()}))
    result = peft.set_peft_model_state_dict(unet, tensors)
    if result.unexpected_keys:
        raise ValueError(f"unknown tensors {result.unexpected_keys[:3]}")


def _keys(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as file:
        return list(file.keys())
