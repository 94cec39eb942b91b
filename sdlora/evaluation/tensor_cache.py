"""Cache of computed tensors: one safetensors file, named by the digest of its inputs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


def load_or_compute(path: Path, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Load the tensors from `path`, or compute and store them. A damaged file is replaced.

    Writing is atomic. On a full disk the tensors are returned without a cache entry.
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
