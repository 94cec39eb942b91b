"""Take an image out of the caches of tensors, which hold what models made of its pixels."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from sdlora.core.errors import StorageError
from sdlora.training.inputs.tensor_cache import TensorCache

SETS_OF_IMAGES = frozenset({"features", "reconstructions", "generations"})
"""Caches whose files stand for a whole set of images. They go as a whole: which sets held it is not recorded."""


def forget_in_caches(cache: Path, sha256: str) -> int:
    """Remove what `cache` holds of an image; returns how many files were changed or removed.

    Latents of other images stay. What is removed by the way is made again when it is needed.

    Raises:
        StorageError: a file cannot be changed.
    """
    changed_count = 0
    try:
        for path in sorted(cache.rglob("*.safetensors")):
            if path.relative_to(cache).parts[0] in SETS_OF_IMAGES:
                path.unlink()
                changed_count += 1
            else:
                changed_count += _remove_entries(path, sha256)
    except OSError as error:
        raise StorageError(
            f"{cache} cannot be changed: {error}. Delete the folder; all of it is made again when it is needed."
        ) from error
    return changed_count


def _remove_entries(path: Path, sha256: str) -> bool:
    """Write the file anew without the entries of this image; returns whether it had any."""
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            other_entries = {name: file.get_tensor(name) for name in names if sha256 not in name}
    except SafetensorError:  # damaged: its reader would delete it too
        path.unlink()
        return True
    if len(other_entries) == len(names):
        return False
    if other_entries:
        TensorCache(path.parent).add(other_entries)
    path.unlink()
    return True
