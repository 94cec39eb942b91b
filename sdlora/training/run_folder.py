"""Run folder of one training run: lock, record of the inputs, and metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sdlora.core.errors import DataError, StorageError, TrainingError
from sdlora.core.files import replace_file
from sdlora.data.snapshot import Snapshot, load_snapshot
from sdlora.store.image_store import ImageStore

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
LOCK_FILE = ".lock"
DISK_FILE = "disk.json"
ADAPTER_FOLDER, RUNNER_UP_FOLDER, MODEL_FOLDER = "adapter", "runner-up", "model"
_POLL_SECONDS = 0.2


@contextmanager
def exclusive(folder: Path, patience_seconds: float = 30.0) -> Iterator[None]:
    """Lock the folder for this process; the lock ends with the process, even if it is killed.

    An interrupted process needs a moment to save and end, so the next one waits up to `patience_seconds`.

    Raises:
        TrainingError: another process is training there.
        StorageError: the folder cannot be written.
    """
    lock = FileLock(folder / LOCK_FILE, timeout=patience_seconds, poll_interval=_POLL_SECONDS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise TrainingError(
            f"Another process is training in {folder}. Wait for it or stop it; its work is kept."
        ) from error
    except OSError as error:
        raise StorageError(f"Cannot write to the run folder {folder}: {error}.") from error
    try:
        yield
    finally:
        lock.release()


def claim(folder: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    """Write the record of a run's inputs, or return the record of an earlier start.

    Raises:
        TrainingError: the folder belongs to a run of other inputs, or its record is damaged.
        StorageError: the folder cannot be written.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        write_record(folder, run)
        return dict(run)
    try:
        started: dict[str, Any] = json.loads(path.read_text())
        digest = started["run_digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path} is damaged. Remove the folder {folder} to train again from the start.") from error
    if digest != run["run_digest"]:
        raise TrainingError(
            f"{folder} holds the run {digest[:12]}, not {run['run_digest'][:12]}: the base model, the snapshot, the "
            "adapter's or the training settings changed. Use another folder, or restore what changed to continue."
        )
    return started


def snapshot_of_run(folder: Path, current: Snapshot, store: ImageStore) -> Snapshot:
    """Return the snapshot that the run in the folder began with; `current` if none has begun, or if it has ended.

    The two differ in held-out images only. An interrupted run keeps those of its first start: validations on other
    images do not compare.

    Raises:
        TrainingError: the image database no longer has the snapshot.
    """
    if any((folder / result).is_dir() for result in (ADAPTER_FOLDER, MODEL_FOLDER)):
        return current
    try:
        digest = json.loads((folder / CONFIG_FILE).read_text())["snapshot_digest"]
    except (OSError, ValueError, KeyError, TypeError):
        return current
    if digest == current.digest:
        return current
    try:
        return load_snapshot(store, digest)
    except DataError as error:
        raise TrainingError(
            f"{folder} holds a run that began with the snapshot {digest[:16]}, which this image database does not "
            "have. Remove the folder to train again from the start."
        ) from error


def write_record(folder: Path, run: Mapping[str, Any]) -> None:
    """Write the record of a run's inputs.

    Raises:
        StorageError: the disk is full or not writable.
    """
    replace_file(folder / CONFIG_FILE, f"{json.dumps(dict(run), indent=2, sort_keys=True)}\n".encode())


def record_peak_size(folder: Path) -> None:
    """Write the largest size that the run folder had: at the end of the training, before checkpoints are deleted.

    A checkpoint is written before the oldest one is deleted, so the largest one counts once more.

    Raises:
        StorageError: the disk is full or not writable.
    """
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    checkpoints = {path.parent: 0 for path in sizes if path.parent.parent == folder / "checkpoints"}
    for path, size in sizes.items():
        if path.parent in checkpoints:
            checkpoints[path.parent] += size
    peak = sum(sizes.values()) + max(checkpoints.values(), default=0)
    replace_file(folder / DISK_FILE, f"{json.dumps({'peak_bytes': peak})}\n".encode())


class CurveWriter:
    """Writer of the reported metrics: in memory for the checkpoint, in `metrics.jsonl` for people."""

    def __init__(self, folder: Path, points: Sequence[Mapping[str, float]] = ()) -> None:
        """Start with the points of a checkpoint; later points in the file are dropped and will be measured again."""
        self.path = folder / METRICS_FILE
        self.points: list[dict[str, float]] = [dict(point) for point in points]
        replace_file(self.path, "".join(json.dumps(point) + "\n" for point in self.points).encode())

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Append one point.

        Raises:
            StorageError: the disk is full or not writable.
        """
        point = {"step": step, **values}
        self.points.append(point)
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(point) + "\n")
        except OSError as error:
            raise StorageError(
                f"Cannot write {self.path}: {error}. Free some space and run again; the last checkpoint is kept."
            ) from error
