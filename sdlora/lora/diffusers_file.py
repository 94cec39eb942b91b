"""The adapter as diffusers stores it: `pytorch_lora_weights.safetensors`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open

from sdlora.lora.config import LoraConfig
from sdlora.lora.layers import LowRankUpdate
from sdlora.lora.tensor_file import write_tensor_file

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
_PREFIX = "unet."


def write_diffusers_file(path: Path, updates: Mapping[str, LowRankUpdate], config: LoraConfig) -> str:
    """Write the file and return its SHA-256.

    All keys end in lora_A / lora_B. diffusers' own conversion renames only the attention keys to lora.down / .up,
    and its loader then drops one of the two kinds with no more than a warning.

    The format has no alpha tensors; alpha travels in the metadata as the settings of peft.LoraConfig.
    """
    tensors = {}
    for name, update in updates.items():
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = update.down
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = update.up
    settings = {
        "r": config.rank,
        "lora_alpha": config.alpha,
        "target_modules": sorted(config.target_modules),
        "bias": "none",
    }
    packed = {_PREFIX + key: value for key, value in settings.items()}
    return write_tensor_file(
        path, tensors, {"format": "pt", "lora_adapter_metadata": json.dumps(packed, sort_keys=True)}
    )


def read_diffusers_file(path: Path) -> dict[str, LowRankUpdate]:
    """Read the file as diffusers does: the rank from the tensors, alpha from the metadata, else the rank."""
    with safe_open(path, framework="pt") as file:
        settings = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
        alpha = settings.get(f"{_PREFIX}lora_alpha")
        names = [key.removesuffix(".lora_A.weight") for key in file.keys() if key.endswith(".lora_A.weight")]  # noqa: SIM118
        updates = {}
        for name in names:
            down, up = file.get_tensor(f"{name}.lora_A.weight"), file.get_tensor(f"{name}.lora_B.weight")
            updates[name.removeprefix(_PREFIX)] = LowRankUpdate(down, up, down.shape[0] if alpha is None else alpha)
    return updates
