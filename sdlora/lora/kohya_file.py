"""The adapter as kohya's sd-scripts stores it, which ComfyUI, A1111 and Forge read.

One tensor triple per layer: `<name>.lora_down.weight`, `<name>.lora_up.weight` and `<name>.alpha`, where <name> is
`lora_unet_` + the layer's name with dots as underscores. A file without alpha tensors is read with scale 1 by some
tools and with alpha 1 by others, so alpha is always written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open

from sdlora.lora.config import LoraConfig
from sdlora.lora.layers import LowRankUpdate
from sdlora.lora.tensor_file import tensor_bytes, write_tensor_file

_PREFIX = "lora_unet_"


def write_kohya_file(
    path: Path, updates: Mapping[str, LowRankUpdate], config: LoraConfig, metadata: Mapping[str, str]
) -> str:
    """Write the file and return its SHA-256.

    `metadata` holds `ss_*`, `modelspec.*` and own keys; the network's settings and the hashes are added here.
    """
    tensors = {}
    for name, update in updates.items():
        key = kohya_name(name)
        tensors[f"{key}.lora_down.weight"] = update.down
        tensors[f"{key}.lora_up.weight"] = update.up
        tensors[f"{key}.alpha"] = torch.tensor(float(update.alpha))
    network = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(config.rank),
        "ss_network_alpha": f"{config.alpha:g}",
    }
    if any(update.down.shape[-1] == 3 and update.down.ndim == 4 for update in updates.values()):
        network["ss_network_args"] = json.dumps({"conv_dim": str(config.rank), "conv_alpha": f"{config.alpha:g}"})
    # sshs_model_hash covers the bytes after the header; the legacy hash covers 64 KiB at 1 MiB of the whole file
    # with only the ss_ metadata, as sd-scripts computes them (`precalculate_safetensors_hashes`).
    data = tensor_bytes(tensors)
    model_hash = hashlib.sha256(data).hexdigest()
    hashes = {"sshs_model_hash": model_hash, "modelspec.hash_sha256": f"0x{model_hash}"}
    known = {**metadata, **network}
    write_tensor_file(path, tensors, {key: value for key, value in known.items() if key.startswith("ss_")})
    with path.open("rb") as file:
        file.seek(0x100000)
        hashes["sshs_legacy_hash"] = hashlib.sha256(file.read(0x10000)).hexdigest()[:8]
    return write_tensor_file(path, tensors, {**known, **hashes})


def read_kohya_file(path: Path) -> dict[str, LowRankUpdate]:
    """Read the file by ComfyUI's rules, keyed by kohya name: scale alpha / rank, and 1 where alpha is missing."""
    with safe_open(path, framework="pt") as file:
        keys = set(file.keys())
        updates = {}
        for name in sorted(key.removesuffix(".lora_down.weight") for key in keys if key.endswith(".lora_down.weight")):
            down, up = file.get_tensor(f"{name}.lora_down.weight"), file.get_tensor(f"{name}.lora_up.weight")
            alpha = file.get_tensor(f"{name}.alpha").item() if f"{name}.alpha" in keys else down.shape[0]
            updates[name] = LowRankUpdate(down, up, alpha)
    return updates


def kohya_name(layer_name: str) -> str:
    """`down_blocks.0.attentions.0.proj_in` -> `lora_unet_down_blocks_0_attentions_0_proj_in` (SD 1 and 2)."""
    return _PREFIX + layer_name.replace(".", "_")
