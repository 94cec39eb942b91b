"""Digest of a model folder, over its weights and settings.

Hashing gigabytes at every start is slow, so the SHA-256 of a file is cached by (path, size, mtime).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from sdlora.core.files import file_sha256, make_private_folder, replace_file

_IDENTITY_SUFFIXES = (".safetensors", ".json", ".txt")
_SETTLED_SECONDS = 2.0  # a younger file may still change within the resolution of its timestamp


DIGESTS_FILE = ".sha256.json"
"""Record of a model folder that sdlora wrote: the SHA-256 of its files, by name relative to the folder."""


def record_digests(folder: Path) -> None:
    """Write `DIGESTS_FILE` into a finished model folder.

    Raises:
        StorageError: the disk is full or not writable.
    """
    digests = {path.relative_to(folder).as_posix(): file_sha256(path) for path in identity_files(folder)}
    replace_file(folder / DIGESTS_FILE, json.dumps(digests, indent=1).encode())


def recorded_digests(folder: Path) -> dict[str, str] | None:
    """Read `DIGESTS_FILE`; None if it is missing or damaged."""
    try:
        return {str(name): str(digest) for name, digest in json.loads((folder / DIGESTS_FILE).read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return None


class DigestCache:
    """Cache of files' SHA-256 in a JSON file; a damaged or unwritable cache only costs time."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._entries: dict[str, list[int | str]] = {}
        if path is not None:
            try:
                self._entries = dict(json.loads(path.read_text()))
            except (OSError, ValueError, TypeError):
                self._entries = {}

    @classmethod
    def of_home(cls, home: Path) -> DigestCache:
        return cls(home / "cache" / "file-digests.json")

    def sha256(self, path: Path) -> str:
        stat = path.stat()
        key = str(path.resolve())
        entry = self._entries.get(key)
        if isinstance(entry, list) and entry[:2] == [stat.st_size, stat.st_mtime_ns]:
            return str(entry[2])
        digest = file_sha256(path)
        if time.time() - stat.st_mtime > _SETTLED_SECONDS:
            self._entries[key] = [stat.st_size, stat.st_mtime_ns, digest]
            self._write()
        return digest

    def _write(self) -> None:
        if self.path is None:
            return
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            make_private_folder(self.path.parent)
            partial.write_text(json.dumps(self._entries))
            partial.replace(self.path)
        except OSError:
            partial.unlink(missing_ok=True)


def folder_digest(folder: Path, cache: DigestCache | None = None) -> str:
    """Compute the SHA-256 over the relative name and the content of every weights, settings and vocabulary file.

    The digest is independent of the folder's path and of the order in which files are listed.
    """
    cache = cache or DigestCache()
    lines = (f"{path.relative_to(folder).as_posix()} {cache.sha256(path)}\n" for path in identity_files(folder))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def identity_files(folder: Path) -> Iterable[Path]:
    """Yield the files that determine a model's output, sorted; hidden folders only serve downloads."""
    for path in sorted(folder.rglob("*")):
        hidden = any(component.startswith(".") for component in path.relative_to(folder).parts)
        if path.suffix in _IDENTITY_SUFFIXES and path.is_file() and not hidden:
            yield path
