"""Safetensors files with reproducible bytes.

The safetensors library writes metadata in hash-map order, which differs between processes. Equal adapters must give
equal files, so the header is written here, with tensors and metadata sorted by name.
Format: 8 bytes of header length, a JSON header padded with spaces to 8 bytes, the tensors' bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from sdlora.core.errors import StorageError

_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def data_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Compute the SHA-256 of the data section, the bytes after the header."""
    digest = hashlib.sha256()
    for chunk in _data(tensors):
        digest.update(chunk)
    return digest.hexdigest()


def _data(tensors: Mapping[str, Tensor]) -> Iterator[bytes]:
    """Yield every tensor's bytes (little-endian, row-major), sorted by name; one tensor at a time is copied."""
    for name in sorted(tensors):
        yield tensors[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def write_tensor_file(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Write the file and return its SHA-256.

    Raises:
        StorageError: the disk is full or not writable.
    """
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    digest = hashlib.sha256()
    try:
        with path.open("wb") as file:
            for chunk in chain((len(encoded).to_bytes(8, "little"), encoded), _data(tensors)):
                file.write(chunk)
                digest.update(chunk)
    except OSError as error:
        raise StorageError(f"Cannot write {path}: {error}. Free some space in {path.parent} and run again.") from error
    return digest.hexdigest()
