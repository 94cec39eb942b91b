"""Safetensors with reproducible bytes.

The safetensors library writes its metadata in hash-map order, which differs from process to process. The same
adapter must be the same file, so the header is written here: tensors and metadata sorted by name.
Format: 8 bytes of header length, a JSON header padded with spaces to 8 bytes, the tensors' bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sdlora.errors import StorageError

_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """The data section: every tensor's bytes (little-endian, row-major), sorted by name."""
    parts = [tensors[name].detach().cpu().contiguous().view(-1).view(torch.uint8) for name in sorted(tensors)]
    return b"".join(part.numpy().tobytes() for part in parts)


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
    content = len(encoded).to_bytes(8, "little") + encoded + tensor_bytes(tensors)
    try:
        path.write_bytes(content)
    except OSError as error:
        raise StorageError(f"Cannot write {path}: {error}. Free some space in {path.parent} and run again.") from error
    return hashlib.sha256(content).hexdigest()
