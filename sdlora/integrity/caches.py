"""Cache files, whose names or entries are digests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from sdlora.core.files import file_sha256
from sdlora.integrity.copies import Copy


def cache_copies(home: Path) -> Iterator[Copy]:
    """List the tensor files, which are named by their SHA-256, and the small JSON files of the cache."""
    cache = home / "cache"
    for path in sorted(cache.rglob("*.safetensors")):
        if "adapters" not in path.relative_to(cache).parts:
            yield Copy("cache", f"cache file {path.name[:12]}", path, str(path), _has_digest_as_name, "", is_cache=True)
    for path in sorted(cache.glob("*.json")):
        yield Copy("cache", f"cache file {path.name}", path, str(path), _is_json_object, "", is_cache=True)


def _has_digest_as_name(path: Path) -> bool:
    return file_sha256(path) == path.stem


def _is_json_object(path: Path) -> bool:
    return isinstance(json.loads(path.read_text()), dict)
