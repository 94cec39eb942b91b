"""Tensor cache on disk, addressed by key; every call to `add` appends one file.

100 new images cost one file of 100 entries. A file is named by the SHA-256 of its content. A damaged file does not
match its name: it is deleted, and only its own entries are lost. So a file needs no flush to the disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sdlora.core.devices import empty_device_cache
from sdlora.core.errors import StorageError
from sdlora.core.files import file_sha256
from sdlora.core.progress import OnProgress

_KEYS_PER_FILE = 64

Encode = Callable[[Sequence[str]], Mapping[str, Tensor]]
"""Makes the entries of some keys; leaves out a key that cannot be encoded."""


class TensorCache:
    """Folder of safetensors files; entries are memory-mapped, so they cost memory only while in use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, keys: Collection[str]) -> dict[str, Tensor]:
        """Load the entries of `keys` that are present and undamaged."""
        requested = set(keys)
        entries: dict[str, Tensor] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            if not requested - entries.keys():
                break
            try:
                with safe_open(path, framework="pt") as file:
                    present = requested.intersection(file.keys())
                    is_intact = not present or file_sha256(path) == path.stem
                    entries |= {key: file.get_tensor(key) for key in present if is_intact}
            except (OSError, SafetensorError):
                is_intact = False
            if not is_intact:
                with suppress(OSError):  # a read-only disk: the file is ignored all the same
                    path.unlink()
        return entries

    def load_or_compute(
        self, key: str, names: Sequence[str], compute: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Load the tensors `names` of one key, or compute and store them.

        On a full disk the tensors are returned without a cache entry.
        """
        entries = self.load([f"{key}.{name}" for name in names])
        if len(entries) == len(names):
            return {name: entries[f"{key}.{name}"] for name in names}
        tensors = {name: tensor.contiguous() for name, tensor in compute().items()}
        with suppress(StorageError):
            self.add({f"{key}.{name}": tensor for name, tensor in tensors.items()})
        return tensors

    def load_or_encode(
        self,
        keys: Sequence[str],
        make_encoder: Callable[[], Encode],
        *,
        device: torch.device,
        stage: str,
        on_progress: OnProgress | None = None,
        suffixes: Sequence[str] = ("",),
    ) -> dict[str, Tensor]:
        """Load the entries of all keys; encode and add missing ones first.

        Args:
            keys: what the tensors are made from. A key that cannot be encoded is absent from the result.
            make_encoder: called only if an entry is missing, to load the encoder.
            device: where the encoder runs; its memory is freed afterwards.
            stage: name of the work for `on_progress`.
            on_progress: called after every file with the keys done and the number of missing keys.
            suffixes: one per output of the encoder: a key has the entries `key + suffix`.

        Raises:
            StorageError: the disk is full or not writable; finished files are kept.
        """
        entries_of = {key: {key + suffix for suffix in suffixes} for key in keys}
        requested = [key + suffix for key in keys for suffix in suffixes]
        entries = self.load(requested)
        missing = [key for key in keys if not entries_of[key] <= entries.keys()]
        if missing:
            encode = make_encoder()
            for start in range(0, len(missing), _KEYS_PER_FILE):
                chunk = missing[start : start + _KEYS_PER_FILE]
                encoded = encode(chunk)
                if encoded:
                    self.add(encoded)
                if on_progress:
                    on_progress(stage, start + len(chunk), len(missing))
            del encode
            empty_device_cache(device)
            # Read back, so that this run trains on the same tensors as the next one.
            entries = self.load(requested)
        return {entry: entries[entry] for entry in requested if entry in entries}

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        """Write one file with these entries.

        Raises:
            StorageError: the disk is full or not writable.
        """
        partial = self.folder / f".{os.getpid()}.partial"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # clone, because rows of one batch share storage and safetensors refuses that.
            save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, partial)
            partial.rename(self.folder / f"{file_sha256(partial)}.safetensors")
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            raise StorageError(
                f"Cannot write to the cache {self.folder}: {error}. Free some space and run again; "
                "finished parts are kept."
            ) from error
