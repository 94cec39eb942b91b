"""Removal of an image from the tensor caches, which hold what models computed from its pixels."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from sdlora.core.errors import StorageError
from sdlora.core.tensor_cache import TensorCache

SETS_OF_IMAGES = frozenset({"features", "reconstructions", "generations"})
"""Caches with one file per set of images. All files are deleted, because their images are not recorded."""


def forget_in_caches(cache: Path, sha256: str) -> int:
    """Remove the entries of an image from `cache`; return how many files were changed or removed.

    Latents of other images stay. Other removed entries are computed again on demand.

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
            f"{cache} cannot be changed: {error}. Delete the folder; its entries are computed again on demand."
        ) from error
    return changed_count


def _remove_entries(path: Path, sha256: str) -> bool:
    """Replace the file by one without the entries of this image; return whether it had any."""
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            other_entries = {name: file.get_tensor(name) for name in names if sha256 not in name}
    except SafetensorError:  # damaged: a reader would delete the file, too
        path.unlink()
        return True
    if len(other_entries) == len(names):
        return False
    if other_entries:
        TensorCache(path.parent).add(other_entries)
    path.unlink()
    return True
