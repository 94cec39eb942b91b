"""Read an adapter file the way its users do: by diffusers where it can, else by peft."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
from safetensors import safe_open
from torch import Tensor

from sdlora.errors import WeightsError

ADAPTER_WEIGHTS = "pytorch_lora_weights.safetensors"


def attach_adapter_file(network: Any, folder: Path, part: str) -> None:
    """Put the adapter of `folder/pytorch_lora_weights.safetensors` beside the weights of `network`, in place.

    diffusers reads LoRA, DoRA and LoKr; LoHa it does not know, peft does.

    Args:
        network: a diffusers model.
        folder: the adapter's.
        part: the network's folder in the base model, which begins the names of its layers in the file.

    Raises:
        WeightsError: the file does not fit the network.
    """
    path = folder / ADAPTER_WEIGHTS
    try:
        if any(".hada_" in key for key in _keys(path)):
            _attach_by_peft(network, path, f"{part}.")
        else:
            network.load_lora_adapter(
                str(folder), prefix=part, weight_name=ADAPTER_WEIGHTS, use_safetensors=True, local_files_only=True
            )
    except Exception as error:  # a wrong shape or key surfaces as RuntimeError, ValueError or KeyError
        raise WeightsError(f"The adapter in {folder} cannot be loaded ({type(error).__name__}: {error}).") from error


def _attach_by_peft(network: Any, path: Path, prefix: str) -> None:
    with safe_open(path, framework="pt") as file:
        packed = json.loads(file.metadata()["lora_adapter_metadata"])
        keys = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118
        tensors: dict[str, Tensor] = {key.removeprefix(prefix): file.get_tensor(key) for key in keys}
    settings = {key.removeprefix(prefix): value for key, value in packed.items() if key.startswith(prefix)}
    network.add_adapter(peft.LoHaConfig(**settings))
    result = peft.set_peft_model_state_dict(network, tensors)
    if result.unexpected_keys:
        raise ValueError(f"unknown tensors {result.unexpected_keys[:3]}")


def _keys(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as file:
        return list(file.keys())
