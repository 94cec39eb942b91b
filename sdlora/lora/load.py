"""Open an adapter, put it back on its base model, or add it to the weights for good."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from peft.tuners.lora import LoraLayer as PeftLayer

from sdlora.artifacts import AdapterRef, BaseModelRef
from sdlora.errors import WeightsError
from sdlora.lora.attach import attach_lora
from sdlora.lora.diffusers_file import DIFFUSERS_FILE, read_diffusers_file
from sdlora.lora.layers import ADAPTER_NAME
from sdlora.lora.manifest import read_manifest
from sdlora.models.digests import DigestCache
from sdlora.models.folder_check import check_safetensors
from sdlora.models.stable_diffusion import check_adapter


def open_adapter(folder: Path) -> AdapterRef:
    """Check the files of an adapter folder against its `adapter.json`.

    Raises:
        WeightsError: a file is missing, damaged or changed.
    """
    manifest = read_manifest(folder)
    digests = DigestCache()
    for file, digest in ((DIFFUSERS_FILE, manifest.digest), (manifest.kohya_file, manifest.kohya_digest)):
        path = folder / file
        if not path.is_file():
            raise WeightsError(f"{path} is missing. Restore the file or train the adapter again.")
        if digests.sha256(path) != digest:
            raise WeightsError(f"{path} is damaged: its SHA-256 is not {digest[:12]}. Restore the file.")
    return AdapterRef(
        folder=folder,
        digest=manifest.digest,
        base_digest=manifest.base_digest,
        snapshot_digest=manifest.snapshot_digest,
        run_digest=manifest.run_digest,
    )


def load_adapter(unet: UNet2DConditionModel, adapter: AdapterRef, base: BaseModelRef) -> UNet2DConditionModel:
    """Attach a saved adapter beside the weights of its base model; it can be trained further.

    Raises:
        WeightsError: the adapter belongs to another base model, or a file is missing or damaged.
    """
    check_adapter(adapter, base)
    path = adapter.folder / DIFFUSERS_FILE
    check_safetensors(path)
    updates = read_diffusers_file(path)
    attach_lora(unet, read_manifest(adapter.folder).lora)
    layers = {name: layer for name, layer in unet.named_modules() if isinstance(layer, PeftLayer)}
    if layers.keys() != updates.keys():
        strange = sorted(layers.keys() ^ updates.keys())
        raise WeightsError(f"{path} does not fit its adapter.json: layers {strange[:3]} differ. Restore the folder.")
    with torch.no_grad():
        for name, update in updates.items():
            layers[name].lora_A[ADAPTER_NAME].weight.copy_(update.down)
            layers[name].lora_B[ADAPTER_NAME].weight.copy_(update.up)
    return unet


def merge(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Take theta' = theta + delta theta: add the attached adapter to the weights, in place, and take its layers away.

    Raises:
        WeightsError: no adapter is attached, or the merged weights would not be finite.
    """
    if not any(isinstance(layer, PeftLayer) for layer in unet.modules()):
        raise WeightsError(f"This {type(unet).__name__} has no adapter to merge.")
    try:
        unet.fuse_lora(safe_fusing=True)
    except ValueError as error:  # peft: NaNs detected in the merged weights
        raise WeightsError(f"The adapter cannot be merged: {error}. Train it again.") from error
    unet.unload_lora()
    return unet
