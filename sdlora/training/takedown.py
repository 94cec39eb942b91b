"""Takedown in run folders: a run of a purged image stops, and what it learnt is removed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from sdlora.core.errors import StorageError, TakedownError, TrainingError
from sdlora.core.files import file_sha256
from sdlora.core.refs import ADAPTER_WEIGHTS
from sdlora.data.snapshot import Snapshot
from sdlora.data.takedown import TakedownWatch
from sdlora.store.image_store import ImageStore
from sdlora.store.lineage import published_digests
from sdlora.training.forget import forget_in_caches
from sdlora.training.judging import choosing
from sdlora.training.run_folder import ADAPTER_FOLDER, CONFIG_FILE, LOCK_FILE, RUNNER_UP_FOLDER, exclusive

STOP_SECONDS = 120.0
"""Time that a running training has to notice the takedown."""

_UNCHOSEN = ("checkpoints", choosing.FOLDER, RUNNER_UP_FOLDER)


@contextmanager
def stopping_at_takedown(
    store: ImageStore, snapshot: Snapshot, folder: Path, *, cleans: bool = True
) -> Iterator[TakedownWatch]:
    """Stop the block if an image of the snapshot is purged, and remove what it learnt.

    The database is asked before and after the block. Between the two, the block asks the watch. An error that a missing
    image causes becomes the error of the takedown.

    Args:
        folder: run folder of the block.
        cleans: remove what was learnt; of several processes of one training, the first one does.

    Raises:
        TakedownError: an image of the snapshot was purged.
        StorageError: the database cannot be read, or a file cannot be removed.
    """
    watch = TakedownWatch(store, snapshot)
    try:
        watch.refuse()
        yield watch
        watch.refuse()
    except BaseException as error:
        if not watch.found(at_once=True):
            raise
        purged = watch.purged()
        if cleans:
            forget_run(folder, store)
            for sha256 in purged:
                forget_in_caches(store.home / "cache", sha256)
        if isinstance(error, TakedownError) or not isinstance(error, Exception):
            raise
        raise watch.error(purged) from error


def forget_run(folder: Path, store: ImageStore) -> bool:
    """Remove what a run learnt, except a published adapter; return whether there was anything.

    A published adapter is a version in the registry, whose removal is a decision of a person. The run folder's lock
    stays, because the caller may hold it.

    Raises:
        StorageError: a file cannot be removed.
    """
    weights = folder / ADAPTER_FOLDER / ADAPTER_WEIGHTS
    with store.read() as session:
        is_published = weights.is_file() and file_sha256(weights) in published_digests(session)
    paths = [folder / name for name in _UNCHOSEN] if is_published else list(folder.glob("*"))
    found = [path for path in paths if path.exists() and path.name != LOCK_FILE]
    try:
        for path in found:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be removed: {error}. Remove the folder by hand.") from error
    return bool(found)


def forget_runs(
    store: ImageStore, snapshot_digests: Collection[str], patience_seconds: float = STOP_SECONDS
) -> tuple[list[Path], list[Path]]:
    """Remove what runs on these snapshots learnt, except published adapters.

    A training that is running holds its folder's lock. It stops by itself, which is waited for.

    Returns:
        The run folders from which something was removed, and those whose training did not stop in time.

    Raises:
        StorageError: a file cannot be removed.
    """
    forgotten, busy = [], []
    for record in sorted((store.home / "runs").rglob(CONFIG_FILE)):
        if _snapshot_of(record) not in snapshot_digests:
            continue
        try:
            with exclusive(record.parent, patience_seconds):
                if forget_run(record.parent, store):
                    forgotten.append(record.parent)
        except TrainingError:
            busy.append(record.parent)
    return forgotten, busy


def _snapshot_of(record: Path) -> str | None:
    try:
        values = json.loads(record.read_text())
    except (OSError, ValueError):
        return None
    return values.get("snapshot_digest") if isinstance(values, dict) else None
