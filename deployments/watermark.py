"""Whether anything has changed since the last finished run, told from file sizes and times alone.

This only spares the terminal the start of Prefect, MLflow and PyTorch: whatever is not certain counts as changed, and
then the flow itself finds out by content digests whether there is something to train.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from sdlora.config import PipelineConfig
from tasks.results import Release
from tasks.versions import code_version

FILE = "last_run.json"
SERVER_VARIABLES = {"MLFLOW_TRACKING_URI", "SDLORA_DATABASE_URL", "SDLORA_BLOBS_URL"}


def unchanged_release(config: PipelineConfig, home: Path) -> Release | None:
    """The release of the last run if no file that a run reads has changed since."""
    if SERVER_VARIABLES & os.environ.keys():  # registry or images may have changed where no file here shows it
        return None
    try:
        record = json.loads(_file(config, home).read_text())
        release = Release.model_validate(record["release"])
    except (OSError, ValueError, KeyError):
        return None
    is_complete = release.report.is_file() and release.grid.is_file()
    return release if is_complete and record["watermark"] == watermark(config, home) else None


def remember(config: PipelineConfig, home: Path, release: Release) -> None:
    """Note the state of all files after a finished run."""
    repeated = release.model_copy(update={"new": False}).model_dump(mode="json")
    _file(config, home).write_text(json.dumps({"watermark": watermark(config, home), "release": repeated}))


def watermark(config: PipelineConfig, home: Path) -> str:
    """Digest of the settings, the code's version, and name, size and time of every file that a run reads."""
    paths = [
        *map(Path, config.data.sources),
        home / "images.db",
        home / "images.db-wal",
        home / "mlflow" / "mlflow.db",
    ]
    base = Path(config.base_model.source)  # a path or a pinned name; the embedded base changes with the code only
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
