"""Rows of snapshots, compared with the snapshots' digests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sdlora.core.errors import DataError
from sdlora.core.progress import OnProgress
from sdlora.data.snapshot import SnapshotRow, load_snapshot, restore_snapshot
from sdlora.integrity.damage import Damage
from sdlora.store.image_store import ImageStore

FindRows = Callable[[str], Sequence[SnapshotRow] | None]
"""Finds the logged rows of a snapshot by its digest."""


def verify_snapshots(store: ImageStore, find_rows: FindRows, on_progress: OnProgress, *, repair: bool) -> list[Damage]:
    """Read every snapshot, and restore damaged rows from a logged list with the right digest.

    Args:
        on_progress: called with "read snapshots".

    Raises:
        StorageError: the database cannot be reached or written.
    """
    damages = []
    records = store.snapshots()
    for done, record in enumerate(records, start=1):
        try:
            load_snapshot(store, record.digest)
        except DataError:
            damages.append(_damage(store, record.digest, find_rows(record.digest), repair))
        on_progress("read snapshots", done, len(records))
    return damages


def _damage(store: ImageStore, digest: str, rows: Sequence[SnapshotRow] | None, repair: bool) -> Damage:
    repaired = False
    remedy = (
        "Restore a backup of the database, or continue without this snapshot: `sdlora run` makes a new one. Versions "
        "trained on it stay, and the list of their images is lost."
    )
    if rows is not None:
        remedy = "Its list of images is in MLflow; `sdlora doctor --deep --repair` restores it."
        try:
            if repair:
                restore_snapshot(store, digest, rows)
                repaired, remedy = True, "Restored from the list of images in MLflow."
        except DataError as error:
            remedy = str(error)
    return Damage("snapshot", f"snapshot {digest[:16]}", store.database.name, "damaged", remedy, repaired)
