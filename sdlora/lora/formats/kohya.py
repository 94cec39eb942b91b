"""Adapter files of kohya's sd-scripts and LyCORIS, which ComfyUI, A1111 and Forge read.

Each layer has a few tensors, `<name>.lora_down.weight`, `<name>.alpha` and so on; the family defines <name>. Without
alpha tensors some tools use a scale of 1 and others an alpha of 1, so alpha is always written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from sdlora.core.errors import WeightsError
from sdlora.lora.config import Method, ResolvedLora
from sdlora.lora.formats.reading import Change, Reader, change_of, group_by_layer
from sdlora.lora.formats.tensor_file import data_sha256, write_tensor_file
from sdlora.lora.updates import LayerUpdate

_LYCORIS_ALGORITHMS: dict[Method, str] = {"dora": "locon", "loha": "loha", "lokr": "lokr"}


def write_kohya_file(
    path: Path,
    updates: Mapping[str, LayerUpdate],
    config: ResolvedLora,
    metadata: Mapping[str, str],
    module: str = "networks.lora",
) -> str:
    """Write the file and return its SHA-256.

    Args:
        path: file to write.
        updates: updates by kohya's layer names.
        config: settings of the adapter.
        metadata: `ss_*`, `modelspec.*` and `sdlora.*` entries. The network's settings and the hashes are added.
        module: the module of sd-scripts that builds a plain LoRA of the family.

    Raises:
        StorageError: the disk is full or not writable.
    """
    tensors = {
        f"{name}.{suffix}": tensor
        for name, update in updates.items()
        for suffix, tensor in (*update.tensors().items(), ("alpha", torch.tensor(float(update.alpha))))
    }
    return write_with_hashes(path, tensors, {**metadata, **_network_metadata(updates, config, module)})


def write_with_hashes(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Write a safetensors file with sd-scripts' hashes in its metadata, and return the file's SHA-256.

    sshs_model_hash covers the bytes after the header. The legacy hash covers 64 KiB at offset 1 MiB of the file with
    only the ss_ metadata. sd-scripts computes both in `precalculate_safetensors_hashes`.
    """
    model_hash = data_sha256(tensors)
    hashes = {"sshs_model_hash": model_hash, "modelspec.hash_sha256": f"0x{model_hash}"}
    write_tensor_file(path, tensors, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    with path.open("rb") as file:
        file.seek(0x100000)
        hashes["sshs_legacy_hash"] = hashlib.sha256(file.read(0x10000)).hexdigest()[:8]
    return write_tensor_file(path, tensors, {**metadata, **hashes})


def read_kohya_file(path: Path, reader: Reader = "lycoris") -> dict[str, Change]:
    """Read the change of each layer's weight by kohya name, by the rules of `reader`.

    Raises:
        WeightsError: the tensors of a layer form no update.
    """
    changes = {}
    with safe_open(path, framework="pt") as file:
        for name, keys in group_by_layer(file.keys()).items():
            change = change_of({suffix: file.get_tensor(key) for suffix, key in keys.items()}, reader)
            if change is None:
                raise WeightsError(f"{path.name}: the tensors of {name} ({', '.join(sorted(keys))}) make no update.")
            changes[name] = change
    return changes


def _network_metadata(updates: Mapping[str, LayerUpdate], config: ResolvedLora, module: str) -> dict[str, str]:
    """Build the metadata from which sd-scripts and LyCORIS build the same network."""
    denoiser_updates = [update for name, update in updates.items() if not name.startswith("lora_te")]
    smallest = min(denoiser_updates, key=lambda update: update.rank)  # joined layers have a multiple of the rank
    rank, alpha = str(smallest.rank), f"{smallest.alpha:g}"  # of the tensors: PiSSA's have twice the rank
    arguments = {}
    if any(
        tensor.ndim == 4 and tensor.shape[-1] > 1 for update in updates.values() for tensor in update.tensors().values()
    ):
        arguments = {"conv_dim": rank, "conv_alpha": alpha}
    if config.method in _LYCORIS_ALGORITHMS:
        arguments = {"algo": _LYCORIS_ALGORITHMS[config.method], "conv_dim": rank, "conv_alpha": alpha}
    if config.method == "dora":
        arguments |= {"dora_wd": "True", "wd_on_out": "True"}
    network = {
        "ss_network_module": "lycoris.kohya" if config.method in _LYCORIS_ALGORITHMS else module,
        "ss_network_dim": rank,
        "ss_network_alpha": alpha,
    }
    return network | ({"ss_network_args": json.dumps(arguments)} if arguments else {})
