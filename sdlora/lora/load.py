"""Opening of saved adapters, attachment to their base model, and merging."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from sdlora.core.errors import WeightsError
from sdlora.core.refs import ADAPTER_WEIGHTS, AdapterRef, BaseModelRef
from sdlora.lora.attach import adapter_parameters, peft_settings
from sdlora.lora.check import check_files, check_weights
from sdlora.lora.formats.diffusers import group_peft_tensors
from sdlora.lora.layers import ADAPTER_NAME, adapted_layers
from sdlora.models.adapter_weights import merge_attached
from sdlora.models.families import find_layout


def open_adapter(folder: Path, base: BaseModelRef | None = None) -> AdapterRef:
    """Open an adapter's folder after all checks of `sdlora.lora.check`.

    Raises:
        WeightsError: a file is missing, damaged or changed, or does not fit `adapter.json`, the other file or the base.
    """
    manifest = check_files(folder, base)
    return AdapterRef(
        folder=folder,
        digest=manifest.digest,
        base_digest=manifest.base_digest,
        snapshot_digest=manifest.snapshot_digest,
        run_digest=manifest.run_digest,
    )


def load_adapter(network: Any, adapter: AdapterRef, base: BaseModelRef) -> Any:
    """Attach a saved adapter to its base model, for further training.

    An adapter that was trained as PiSSA is loaded in the form of its file, a plain LoRA of twice the rank.

    Raises:
        WeightsError: the adapter belongs to another base model, or a file is missing, damaged or does not fit.
    """
    path = adapter.folder / ADAPTER_WEIGHTS
    config = check_weights(adapter, base)
    layers = group_peft_tensors(load_file(path), find_layout(base.folder).denoiser)
    network.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):  # peft draws factors, which are replaced below
        network.add_adapter(peft_settings(config.as_saved(), list(layers)), adapter_name=ADAPTER_NAME)
    parameters = adapter_parameters(network)
    tensors = {
        f"{layer}.{suffix}": tensor
        for layer, layer_tensors in layers.items()
        for suffix, tensor in layer_tensors.items()
    }
    mismatched = sorted(
        parameters.keys() ^ tensors.keys()
        or {name for name, tensor in tensors.items() if tensor.shape != parameters[name].shape}
    )
    if mismatched:
        raise WeightsError(f"{path} does not fit its adapter.json: {mismatched[:3]} differ. Restore the folder.")
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)
    return network


def merge(network: Any) -> Any:
    """Merge the attached adapter into the weights (theta' = theta + delta theta), in place, and remove its layers.

    Raises:
        WeightsError: no adapter is attached, or the merged weights would not be finite.
    """
    if not adapted_layers(network):
        raise WeightsError(f"This {type(network).__name__} has no adapter to merge.")
    merge_attached(network)
    return network
