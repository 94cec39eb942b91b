"""Opening of saved adapters, attachment to their base model, and merging."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from sdlora.core.errors import WeightsError
from sdlora.core.refs import ADAPTER_WEIGHTS, RESTORE_ADAPTER, AdapterRef, BaseModelRef
from sdlora.lora.attach import adapter_parameters, peft_settings
from sdlora.lora.config import ResolvedLora
from sdlora.lora.formats.diffusers import group_peft_tensors
from sdlora.lora.layers import ADAPTER_NAME, adapted_layers
from sdlora.lora.manifest import read_manifest
from sdlora.models.families import find_layout
from sdlora.models.files.digests import DigestCache
from sdlora.models.files.folder_check import check_safetensors
from sdlora.models.stable_diffusion import check_adapter


def open_adapter(folder: Path) -> AdapterRef:
    """Check the files of an adapter folder against its `adapter.json`.

    Raises:
        WeightsError: a file is missing, damaged or changed.
    """
    manifest = read_manifest(folder)
    digests = DigestCache()
    for file, digest in ((ADAPTER_WEIGHTS, manifest.digest), (manifest.kohya_file, manifest.kohya_digest)):
        path = folder / file
        if not path.is_file():
            raise WeightsError(f"{path} is missing. {RESTORE_ADAPTER}")
        if digests.sha256(path) != digest:
            raise WeightsError(f"{path} is damaged: its SHA-256 is not {digest[:12]}. {RESTORE_ADAPTER}")
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
        WeightsError: the adapter belongs to another base model, or a file is missing or damaged.
    """
    check_adapter(adapter, base)
    path = adapter.folder / ADAPTER_WEIGHTS
    check_safetensors(path)
    config = _config_as_saved(read_manifest(adapter.folder).lora)
    layers = group_peft_tensors(load_file(path), find_layout(base.folder).denoiser)
    modules = dict(network.named_modules())
    unknown_layers = sorted(layers.keys() - modules.keys())
    if unknown_layers or not layers:
        raise WeightsError(f"{path} does not fit {type(network).__name__}: it has no layers {unknown_layers[:3]}.")
    network.requires_grad_(False)
    network.add_adapter(peft_settings(config, list(layers)), adapter_name=ADAPTER_NAME)
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
    try:
        network.fuse_lora(safe_fusing=True)
    except ValueError as error:  # peft: NaNs detected in the merged weights
        raise WeightsError(f"The adapter cannot be merged: {error}. Train it again.") from error
    network.unload_lora()
    return network


def _config_as_saved(config: ResolvedLora) -> ResolvedLora:
    if config.method == "pissa":
        return config.model_copy(update={"method": "lora", "rank": 2 * config.rank, "alpha": 2 * config.alpha})
    if config.method == "rslora":
        return config.model_copy(update={"method": "lora", "alpha": config.scaling * config.rank})
    return config
