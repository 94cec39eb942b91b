"""Loading of adapter files by diffusers, or by peft where diffusers does not know the format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors import safe_open
from torch import Tensor, nn

from sdlora.core.errors import WeightsError
from sdlora.core.quoting import escaped, quoted
from sdlora.core.refs import ADAPTER_WEIGHTS
from sdlora.models.adapter_file import METADATA_KEY, OUTER_NAME

_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


def attach_adapter_file(network: Any, folder: Path, part: str) -> None:
    """Attach the adapter of `folder/pytorch_lora_weights.safetensors` to `network`, in place.

    diffusers reads LoRA, DoRA and LoKr. LoHa is read by peft, because diffusers does not know it.

    Args:
        network: a diffusers model.
        folder: folder of the adapter.
        part: folder of the network in the base model; the names of its layers in the file begin with `part`.

    Raises:
        WeightsError: the file does not fit the network.
    """
    path = folder / ADAPTER_WEIGHTS
    try:
        with torch.random.fork_rng(devices=[]):  # peft draws factors and replaces them
            if any(".hada_" in key for key in _keys(path)):
                _attach_by_peft(network, path, f"{part}.")
            else:
                network.load_lora_adapter(
                    str(folder), prefix=part, weight_name=ADAPTER_WEIGHTS, use_safetensors=True, local_files_only=True
                )
    except Exception as error:  # a wrong shape or key surfaces as RuntimeError, ValueError or KeyError
        raise WeightsError(
            f"The adapter in {folder} cannot be loaded ({type(error).__name__}: {escaped(error)})."
        ) from error


def merge_attached(network: Any) -> None:
    """Merge the attached adapter into the weights (theta' = theta + delta theta), in place, and remove its layers.

    Raises:
        WeightsError: the merged weights would not be finite.
    """
    try:
        network.fuse_lora(safe_fusing=True)
    except ValueError as error:  # peft: NaNs detected in the merged weights
        wrong = next((name for name, weight in network.named_parameters() if not weight.isfinite().all()), None)
        reason = f"{quoted(wrong)} is not finite" if wrong else "its numbers are too large"
        raise WeightsError(f"The adapter cannot be merged: {reason}. Restore its file or the base's.") from error
    network.unload_lora()


@torch.no_grad()
def merge_text_adapters(encoders: Mapping[str, nn.Module], folder: Path) -> None:
    """Merge an adapter's updates of text encoders into their weights, in place; most adapters have none.

    Args:
        encoders: text encoders without an attached adapter, by folder in the base model.
        folder: folder of the adapter.

    Raises:
        WeightsError: the file does not fit the encoders, or the merged weights would not be finite.
    """
    path = folder / ADAPTER_WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            settings = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            for key in file.keys():  # noqa: SIM118
                part, name = key.split(".", 1)
                if part not in encoders or not name.endswith(_DOWN):
                    continue
                layer = name.removesuffix(_DOWN)
                down, up = file.get_tensor(key), file.get_tensor(f"{part}.{layer}{_UP}")
                if not hasattr(encoders[part], "text_model"):  # transformers 5 removed the outer name
                    layer = layer.removeprefix(OUTER_NAME)
                weight = encoders[part].get_parameter(f"{layer}.weight")
                delta = up @ down * (settings[f"{part}.lora_alpha"] / settings[f"{part}.r"])
                if not delta.isfinite().all():
                    raise ValueError(f"the update of {key} is not finite")
                weight.add_(delta.to(weight))
    except Exception as error:  # as above
        raise WeightsError(
            f"The adapter in {folder} cannot be loaded ({type(error).__name__}: {escaped(error)})."
        ) from error


def _attach_by_peft(network: Any, path: Path, prefix: str) -> None:
    with safe_open(path, framework="pt") as file:
        packed = json.loads(file.metadata()[METADATA_KEY])
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
