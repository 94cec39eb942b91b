"""Watermark of each style's last finished run: sizes and times of the files that a run reads, and rows of databases.

An unchanged watermark spares the terminal the start of Prefect, MLflow and PyTorch. Anything uncertain counts as
changed; the flow then compares content digests to decide whether there is something to train.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from sdlora.config import PipelineConfig
from sdlora.core.errors import SdloraError
from tasks.code_version import code_version
from tasks.results import Release

FILE = "last_run.json"
SERVER_VARIABLES = {"MLFLOW_TRACKING_URI", "SDLORA_DATABASE_URL", "SDLORA_BLOBS_URL"}
_REGISTRY_QUERIES = (
    "SELECT * FROM model_versions WHERE name = ? ORDER BY version",
    "SELECT * FROM registered_model_aliases WHERE name = ? ORDER BY alias",
    "SELECT * FROM model_version_tags WHERE name = ? ORDER BY version, key",
)
"""Queries of MLflow's database, by the name of a style: what is published, and what is champion."""


def unchanged_release(config: PipelineConfig, home: Path) -> Release | None:
    """Return the release of the style's last run, or None if something that the run read may have changed since."""
    if SERVER_VARIABLES & os.environ.keys():  # registry or images on a server may have changed
        return None
    if any(":" in source.split("/", 1)[0] for source in config.data.sources):  # a source elsewhere, such as s3://
        return None
    try:
        record = json.loads(_file(config, home).read_text())
        release = Release.model_validate(record["release"])
    except (OSError, ValueError, KeyError):
        return None
    is_exported = release.export is None or release.export.problem is None
    is_complete = release.report.is_file() and release.grid.is_file() and is_exported
    if not is_complete or record.get("watermark") != watermark(config, home) or record.get("export") != _export(config):
        return None
    # Runs of other styles write the same databases. The rows of this style are compared only then: they are many.
    is_unchanged = record.get("databases") == _databases(home) or record.get("rows") == _rows(config, home)
    return release if is_unchanged else None


def remember(config: PipelineConfig, home: Path, release: Release, before: str | None = None) -> None:
    """Write the watermark and the release after a finished run.

    Args:
        before: watermark from before the run. A file that arrived during the run is then new to the next run.
    """
    record = {
        "watermark": before or watermark(config, home),
        "export": _export(config),
        "databases": _databases(home),
        "rows": _rows(config, home),
        "release": release.model_copy(update={"new": False}).model_dump(mode="json"),
    }
    _file(config, home).write_text(json.dumps(record))


def watermark(config: PipelineConfig, home: Path) -> str:
    """Compute the digest of the settings, the code's version, and name, size and time of every file of the sources."""
    base = Path(config.base_model.source)  # a path or a pinned name; the embedded base changes only with the code
    paths = [*map(Path, config.data.sources), base]
    state = [config.model_dump_json(), code_version(), *(stamp for path in paths for stamp in _stamps(path))]
    return hashlib.sha256("\n".join(state).encode()).hexdigest()


def _export(config: PipelineConfig) -> list[str]:
    """Return the stamp of the champion's file in the folder of a drawing tool, which a run writes."""
    folder = config.export.on_promote
    return list(_stamps(Path(folder) / f"{config.name}.safetensors")) if folder else []


def _databases(home: Path) -> list[str]:
    paths = (home / "images.db", home / "images.db-wal", _registry(home))
    return [stamp for path in paths for stamp in _stamps(path)]


def _rows(config: PipelineConfig, home: Path) -> str:
    """Compute the digest of the style's rows in both databases; rows that cannot be read equal nothing."""
    from sdlora.store.image_store import ImageStore
    from sdlora.store.inputs import inputs_digest

    try:
        with ImageStore.open(home) as store, store.read() as session:
            images = inputs_digest(session, config.data.dataset or config.name, config.name)
        return hashlib.sha256(f"{images} {_registry_rows(config.name, home)}".encode()).hexdigest()
    except (SdloraError, sqlite3.Error):
        return f"unknown at {time.time_ns()}"


def _registry_rows(name: str, home: Path) -> list[list[tuple[object, ...]]]:
    if not _registry(home).exists():
        return []
    with closing(sqlite3.connect(f"{_registry(home).as_uri()}?mode=ro", uri=True)) as connection:
        return [connection.execute(query, (name,)).fetchall() for query in _REGISTRY_QUERIES]


def _registry(home: Path) -> Path:
    return home / "mlflow" / "mlflow.db"


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
