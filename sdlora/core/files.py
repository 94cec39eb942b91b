"""Atomic writing of files, and digests of files and JSON values."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from sdlora.core.errors import StorageError


def replace_file(path: Path, content: bytes) -> None:
    """Replace the content of `path` atomically: the file holds either the old or the new bytes.

    Raises:
        StorageError: the disk is full or not writable; an earlier file is untouched.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise StorageError(f"Cannot write {path}: {error}. Free some space and run again.") from error
    finally:
        partial.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_digest(value: Any) -> str:
    """Compute the SHA-256 of a JSON value, independent of the order of keys and written without spaces."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
