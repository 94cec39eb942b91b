"""Tensors by content digest, on disk, in files that add up.

Each call to `add` writes one file, so 100 new images cost one file of 100 entries. A file is named by the SHA-256 of
its content: one that was damaged does not match its name, is deleted, and costs only its own entries.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sdlora.core.errors import StorageError
from sdlora.core.files import file_sha256


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
