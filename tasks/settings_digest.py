"""Digest of what a person can correct before a failed run is tried again; imports nothing of Prefect."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sdlora.config import PipelineConfig


def settings_digest(config: PipelineConfig) -> str:
    """Compute the SHA-256 of a style's settings and of the state of its base model's files.

    The style's file, its deployment and its run give the same digest. Hours and triggers are left out, because no run
    fails by them. So are defaults, which a newer sdlora may change. Of files the names, sizes and times count, because
    reading the weights takes long and a style is looked at every minute.
    """
    settings = config.model_dump(mode="json", exclude_defaults=True, exclude={"schedule", "trigger"})
    sources = (config.base_model.source, config.base_model.layout)
    content = [settings, [list(_files(source)) for source in sources if source]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _files(source: str) -> Iterator[tuple[str, int, int]]:
    """Yield name, size and time of the files of a local base model; nothing for the embedded one and for a hub id."""
    with suppress(OSError, ValueError, RuntimeError):  # gone meanwhile, or a text that is no path
        path = Path(source).expanduser()
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            status = file.stat()
            if file.is_file():
                yield file.relative_to(path).as_posix(), status.st_size, status.st_mtime_ns
