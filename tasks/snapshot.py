"""Stage 2: a snapshot of the images that the next adapter learns from."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from sdlora.core.errors import DataError
from sdlora.core.refs import SnapshotRef
from sdlora.data.changes import compare_snapshots
from sdlora.data.clean import CleanReport
from sdlora.data.config import ResolvedData
from sdlora.data.snapshot import Snapshot, latest_snapshot
from sdlora.data.snapshot import make_snapshot as make
from sdlora.store.dataset import Dataset
from sdlora.store.image_store import ImageStore
from sdlora.store.inputs import dataset_digest
from tasks.pages.data_page import publish_data_page
from tasks.pages.run_names import add_to_name, count_of
from tasks.retries import RETRIED
from tasks.run_log import run_log


@task(name="make snapshot", persist_result=False, **RETRIED)
def make_snapshot(cleaned: CleanReport, config: ResolvedData, home: Path) -> SnapshotRef:
    """Freeze the accepted images of the dataset with captions and split; equal images give the same digest.

    The data page is written even after an error, because it shows why there may be too few images.
    """
    with ImageStore.open(home) as store:
        digest, dataset = None, store.dataset(config.dataset)
        previous = _latest_or_none(dataset)
        with store.read() as session:  # before the snapshot: what arrives from now on is news for the next run
            inputs = dataset_digest(session, config.dataset)
        try:
            snapshot = make(dataset, config)
            digest = snapshot.digest
        finally:
            publish_data_page(dataset, config, home, digest)
    _log_changes(previous, snapshot)
    return snapshot.ref(dataset.name).model_copy(update={"inputs": inputs})


def _latest_or_none(dataset: Dataset) -> Snapshot | None:
    try:
        return latest_snapshot(dataset)
    except DataError:  # damaged: the data page reports it, and the new snapshot does not need it
        return None


def _log_changes(previous: Snapshot | None, current: Snapshot) -> None:
    """Log the snapshot and its changes, and add the number of new images to the run's name."""
    changes = compare_snapshots(previous, current)
    log = run_log()
    log.info(
        "Snapshot %s: %d images to train on, %d held out",
        current.digest[:16],
        len(current.train),
        len(current.held_out),
    )
    log.info(
        "Since the snapshot before: %d new, %d gone, %d with other captions",
        len(changes.added),
        len(changes.removed),
        len(changes.recaptioned),
    )
    add_to_name(count_of(len(changes.added), "new image"))
