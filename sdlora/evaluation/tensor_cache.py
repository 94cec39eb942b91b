"""Tensors that are expensive to make, kept as one safetensors file by the digest of what made them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


def load_or_compute(path: Path, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Load `path`, or compute and keep it there. A damaged file is computed again.

    Writing is atomic. A full disk loses the cache entry, not the tensors.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError):
        tensors = {name: tensor.contiguous() for name, tensor in compute().items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial)
        partial.replace(path)
    except (OSError, SafetensorError):
        partial.unlink(missing_ok=True)
    return tensors
