"""Watermark of the last finished run: sizes and times of the files that a run reads.

An unchanged watermark spares the terminal the start of Prefect, MLflow and PyTorch. Anything uncertain counts as
changed; the flow then compares content digests to decide whether there is something to train.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from sdlora.config import PipelineConfig
from tasks.code_version import code_version
from tasks.results import Release

FILE = "last_run.json"
SERVER_VARIABLES = {"MLFLOW_TRACKING_URI", "SDLORA_DATABASE_URL", "SDLORA_BLOBS_URL"}


def unchanged_release(config: PipelineConfig, home: Path) -> Release | None:
    """Return the release of the last run, or None if a file that a run reads may have changed since."""
    if SERVER_VARIABLES & os.environ.keys():  # registry or images on a server may have changed
        return None
    try:
        record = json.loads(_file(config, home).read_text())
        release = Release.model_validate(record["release"])
    except (OSError, ValueError, KeyError):
        return None
    is_exported = release.export is None or release.export.problem is None
    is_complete = release.report.is_file() and release.grid.is_file() and is_exported
    return release if is_complete and record["watermark"] == watermark(config, home) else None


def remember(config: PipelineConfig, home: Path, release: Release) -> None:
    """Write the watermark and the release after a finished run."""
    repeated = release.model_copy(update={"new": False}).model_dump(mode="json")
    _file(config, home).write_text(json.dumps({"watermark": watermark(config, home), "release": repeated}))


def watermark(config: PipelineConfig, home: Path) -> str:
    """Compute the digest of the settings, the code's version, and every file's name, size and time."""
    paths = [
        *map(Path, config.data.sources),
        home / "images.db",
        home / "images.db-wal",
        home / "mlflow" / "mlflow.db",
    ]
    if config.export.on_promote:
        paths.append(Path(config.export.on_promote) / f"{config.name}.safetensors")
    base = Path(config.base_model.source)  # a path or a pinned name; the embedded base changes only with the code
    state = [config.model_dump_json(), code_version(), *(stamp for path in [*paths, base] for stamp in _stamps(path))]
    return hashlib.sha256("\n".join(state).encode()).hexdigest()


def _file(config: PipelineConfig, home: Path) -> Path:
    return home / "runs" / config.name / FILE


def _stamps(path: Path) -> Iterator[str]:
    if path.is_file():
        yield _stamp(path)
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            yield _stamp(Path(folder) / name)


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{path} {status.st_size} {status.st_mtime_ns}"
