"""Watermark of each style's last finished run: sizes and times of the files that a run reads, and rows of databases.

An unchanged watermark spares the terminal the start of Prefect, MLflow and PyTorch. Anything uncertain counts as
changed; the flow then compares content digests to decide whether there is something to train.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from sdlora.config import PipelineConfig
from sdlora.core.errors import SdloraError
from sdlora.core.files import replace_file
from sdlora.store.location import StoreLocation
from tasks.code_version import code_version
from tasks.results import Release

FILE = "last_run.json"
SERVER_VARIABLES = ("SDLORA_DATABASE_URL", "SDLORA_BLOBS_URL")
_REGISTRY_QUERIES = (
    "SELECT * FROM model_versions WHERE name = ? ORDER BY version",
    "SELECT * FROM registered_model_aliases WHERE name = ? ORDER BY alias",
    "SELECT * FROM model_version_tags WHERE name = ? ORDER BY version, key",
)
"""Queries of MLflow's database, by the name of a style: what is published, and what is champion."""


def unchanged_release(config: PipelineConfig, home: Path) -> Release | None:
    """Return the release of the style's last run, or None if something that the run read may have changed since."""
    if "MLFLOW_TRACKING_URI" in os.environ:  # the registry on a server may have changed
        return None
    if any(":" in source.split("/", 1)[0] for source in config.data.sources):  # a source elsewhere, such as s3://
        return None
    try:
        record = json.loads(_file(config, home).read_text())
        release = Release.model_validate(record["release"])
    except (OSError, ValueError, KeyError):
        return None
    is_exported = release.export is None or release.export.problem is None
    is_complete = is_exported and record.get("files") == _files(release)
    if not is_complete or record.get("watermark") != watermark(config, home) or record.get("export") != _export(config):
        return None
    stamps = _databases(home)  # before the rows: what is written meanwhile has other stamps
    if stamps is None or record.get("databases") != stamps:
        # Runs of other styles write the same databases. The rows of this style are compared only then: they are many.
        if record.get("rows") != _rows(config, home):
            return None
        _write(config, home, {**record, "databases": stamps})
    return release


def remember(config: PipelineConfig, home: Path, release: Release, before: str | None = None) -> None:
    """Write the watermark and the release after a finished run.

    A run whose dataset was changed by another process meanwhile is not remembered, so that the next run looks again.

    Args:
        before: watermark from before the run. A file that arrived during the run is then new to the next run.
    """
    stamps, rows = _databases(home), _rows(config, home)
    if rows[0] != release.inputs:
        _file(config, home).unlink(missing_ok=True)
        return
    record = {
        "watermark": before or watermark(config, home),
        "export": _export(config),
        "files": _files(release),
        "databases": stamps,
        "rows": rows,
        "release": release.model_copy(update={"new": False}).model_dump(mode="json"),
    }
    _write(config, home, record)


def _files(release: Release) -> list[bool]:
    """Return which files of the release are there. The flow restores all but those that retention removed."""
    return [release.report.is_file(), release.grid.is_file()]


def _write(config: PipelineConfig, home: Path, record: dict[str, Any]) -> None:
    try:
        replace_file(_file(config, home), json.dumps(record).encode())
    except (OSError, SdloraError):  # a full disk or a home that is not writable: the next run looks again
        return


def watermark(config: PipelineConfig, home: Path) -> str:
    """Compute the digest of the settings, the code's version, and name, size and time of every file of the sources."""
    base = Path(config.base_model.source)  # a path or a pinned name; the embedded base changes only with the code
    paths = [*map(Path, config.data.sources), base]
    servers = [f"{name}={os.environ[name]}" for name in SERVER_VARIABLES if name in os.environ]
    settings = config.model_dump_json(exclude={"schedule", "trigger"})
    digest = hashlib.sha256("\n".join([settings, code_version(), *servers]).encode())
    for path in paths:
        for stamp in _stamps(path):
            digest.update(f"\n{stamp}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _export(config: PipelineConfig) -> list[str]:
    """Return the stamp of the champion's file in the folder of a drawing tool, which a run writes."""
    folder = config.export.on_promote
    return list(_stamps(Path(folder) / f"{config.name}.safetensors")) if folder else []


def _databases(home: Path) -> list[str] | None:
    """Return the stamps of the files of both databases; None if the image database is on a server."""
    database = StoreLocation.of_home(home).database
    if not isinstance(database, Path):
        return None
    journal = database.with_name(f"{database.name}-wal")  # an empty one comes and goes with the readers
    paths = [database, _registry(home), *([journal] if journal.is_file() and journal.stat().st_size else [])]
    return [stamp for path in paths for stamp in _stamps(path)]


def _rows(config: PipelineConfig, home: Path) -> list[str]:
    """Compute the digests of the dataset's and of the style's rows; rows that cannot be read equal nothing."""
    from sdlora.store.image_store import ImageStore
    from sdlora.store.inputs import dataset_digest, style_digest

    try:
        with ImageStore.open(home) as store, store.read() as session:
            images = dataset_digest(session, config.data.dataset or config.name)
            style = style_digest(session, config.name)
        return [images, hashlib.sha256(f"{style} {_registry_rows(config.name, home)}".encode()).hexdigest()]
    except (SdloraError, sqlite3.Error):
        return [f"unknown at {time.time_ns()}"]


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
    """Yield path, size and time of a file, or of all files below a folder. Linked folders are not followed."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # missing, or no path at all, such as the name of a model
        return
    if not stat.S_ISDIR(status.st_mode):
        yield _stamp(str(path), status)
        return
    folders = [str(path)]
    while folders:
        try:
            with os.scandir(folders.pop()) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:  # gone meanwhile, or not readable: the run tells it
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
                continue
            try:
                yield _stamp(entry.path, entry.stat())
            except OSError:  # gone meanwhile, or a link to nothing
                yield f"{entry.path} nothing"


def _stamp(path: str, status: os.stat_result) -> str:
    return f"{path} {status.st_size} {status.st_mtime_ns}"
