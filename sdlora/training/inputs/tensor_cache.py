"""Tensors by content digest, on disk, in files that add up.

Each call to `add` writes one file, so 100 new images cost one file of 100 entries. A file is named by the SHA-256 of
its content: one that was damaged does not match its name, is deleted, and costs only its own entries.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sdlora.core.errors import StorageError
from sdlora.core.files import file_sha256
from sdlora.core.progress import OnProgress
from sdlora.models.families.base import free

_CHUNK = 64
ONLY = ""
"""The name of the output of an encoder that has one."""

Encode = Callable[[Sequence[str]], dict[str, dict[str, Tensor]]]
"""From the keys of one chunk to the outputs of each by name; a key that cannot be encoded is left out."""


class TensorCache:
    """A folder of safetensors files; entries are memory-mapped, so they cost memory only while in use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, keys: Collection[str]) -> dict[str, Tensor]:
        """Those of `keys` that are present and undamaged."""
        wanted = set(keys)
        found: dict[str, Tensor] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            if not wanted - found.keys():
                break
            try:
                with safe_open(path, framework="pt") as file:
                    present = wanted.intersection(file.keys())
                    whole = not present or file_sha256(path) == path.stem
                    found |= {key: file.get_tensor(key) for key in present if whole}
            except (OSError, SafetensorError):
                whole = False
            if not whole:
                path.unlink(missing_ok=True)
        return found

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        """Write one file with these entries.

        Raises:
            StorageError: the disk is full or not writable.
        """
        partial = self.folder / f".{os.getpid()}.partial"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # clone: rows of one batch share storage, which safetensors refuses.
            save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, partial)
            partial.rename(self.folder / f"{file_sha256(partial)}.safetensors")
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            raise StorageError(
                f"Cannot write to the cache {self.folder}: {error}. Free some space and run again; "
                "finished parts are kept."
            ) from error


def look_up(
    cache: TensorCache,
    keys: Sequence[str],
    make_encoder: Callable[[], Encode],
    on_progress: OnProgress | None,
    stage: str,
    device: torch.device,
    outputs: Sequence[str] = (ONLY,),
) -> dict[str, dict[str, Tensor]]:
    """By key and output, from the cache; what is missing is computed first. What cannot be encoded is left out."""
    entries = {key: {name: f"{key}.{name}" if name else key for name in outputs} for key in keys}
    wanted = [entry for of_key in entries.values() for entry in of_key.values()]
    found = cache.load(wanted)
    missing = [key for key in keys if not found.keys() >= set(entries[key].values())]
    if missing:
        encode = make_encoder()
        for done, chunk in _chunks(missing):
            encoded = encode(chunk)
            if encoded:
                cache.add({entries[key][name]: tensors[name] for key, tensors in encoded.items() for name in outputs})
            if on_progress:
                on_progress(stage, done, len(missing))
        del encode
        free(device)
        # Read back, not kept from above: what is trained on is what the next run will find.
        found = cache.load(wanted)
    return {
        key: {name: found[entry] for name, entry in of_key.items()}
        for key, of_key in entries.items()
        if found.keys() >= set(of_key.values())
    }


def _chunks(keys: Sequence[str]) -> Iterable[tuple[int, Sequence[str]]]:
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        yield start + len(chunk), chunk
