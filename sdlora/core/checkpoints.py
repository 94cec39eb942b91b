"""Atomic training checkpoints.

A checkpoint is a folder `step-00000123` with `state.safetensors`, `state.json` and `manifest.json`. The manifest
holds the SHA-256 of the other two. The folder is written under a temporary name and then renamed, so a process that
dies half-way leaves no finished-looking checkpoint. A folder whose digests do not match is skipped.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdlora.core.files import file_sha256, written_aside

_logger = logging.getLogger(__name__)
_FOLDER_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True)
class Checkpoint:
    """State from which a training loop continues: `tensors` by name and small JSON values in `values`."""

    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], values: Mapping[str, Any], keep: int = 2
) -> Path:
    """Write `folder/step-<step>` atomically and delete all but the newest `keep` checkpoints.

    Raises:
        OSError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    final = folder / f"step-{step:08d}"
    with written_aside(final) as partial:
        partial.mkdir()
        save_file(_with_own_storage(tensors), partial / "state.safetensors")
        (partial / "state.json").write_text(json.dumps({"step": step, "values": dict(values)}))
        manifest = {name: file_sha256(partial / name) for name in ("state.safetensors", "state.json")}
        (partial / "manifest.json").write_text(json.dumps(manifest))
    for _, old in _checkpoint_folders(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def _with_own_storage(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to the CPU, each with its own storage: safetensors refuses tied weights and views."""
    separate: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        copy = tensor.detach().cpu().contiguous()
        storage = copy.untyped_storage()
        if storage.data_ptr() in storages or storage.nbytes() != copy.nbytes:
            copy = copy.clone()
        storages.add(copy.untyped_storage().data_ptr())
        separate[name] = copy
    return separate


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """Load the newest whole checkpoint of `folder`; log a warning for every damaged one that is skipped."""
    for step, path in reversed(_checkpoint_folders(folder)):
        try:
            manifest = json.loads((path / "manifest.json").read_text())
            damaged = [name for name, digest in manifest.items() if file_sha256(path / name) != digest]
            if damaged:
                _logger.warning("%s is damaged (%s). Using the checkpoint before it.", path, ", ".join(damaged))
                continue
            state = json.loads((path / "state.json").read_text())
            return Checkpoint(step, load_file(path / "state.safetensors"), state["values"])
        except (OSError, ValueError, KeyError) as error:
            _logger.warning("%s cannot be read (%s). Using the checkpoint before it.", path, error)
            continue
    return None


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flatten the optimiser's state to tensors `optimizer.<parameter index>.<key>`; numbers become 0-d tensors."""
    return {
        f"optimizer.{index}.{key}": torch.as_tensor(value)
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
        if value is not None
    }


def optimizer_groups(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return the settings of each parameter group as JSON values.

    Some optimisers keep state in their settings: Prodigy its step size, schedule-free AdamW the sum of its weights.
    """
    groups = optimizer.state_dict()["param_groups"]
    return [{key: value for key, value in group.items() if key != "params"} for group in groups]


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    groups: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """Restore the state that `optimizer_tensors` and `optimizer_groups` returned.

    Without `groups` the parameter groups keep their present settings.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        prefix, _, state_key = name.partition(".")
        if prefix == "optimizer":
            index, key = state_key.split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
    own_groups = optimizer.state_dict()["param_groups"]
    if groups is not None:
        # JSON has no tuples, but an optimiser may distinguish tuples from lists.
        own_groups = [
            group | {key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()}
            for group, saved in zip(own_groups, groups, strict=True)
        ]
    optimizer.load_state_dict({"state": state, "param_groups": own_groups})


def _checkpoint_folders(folder: Path) -> list[tuple[int, Path]]:
    matches = ((_FOLDER_NAME.fullmatch(path.name), path) for path in folder.iterdir()) if folder.is_dir() else ()
    return sorted((int(match[1]), path) for match, path in matches if match)
