"""What is different between two snapshots, or between the newest one and the images of today."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select

from sdlora.data.snapshot import Snapshot, SnapshotRow, latest_snapshot
from sdlora.store import ImageStore
from sdlora.store.queries import captions_of
from sdlora.store.tables import ImageTable


@dataclass(frozen=True)
class SnapshotChanges:
    """Images by SHA-256, sorted: those that came, those that went, and those with other captions."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    recaptioned: tuple[str, ...]

    @property
    def any(self) -> bool:
        return bool(self.added or self.removed or self.recaptioned)


def compare_snapshots(old: Snapshot | None, new: Snapshot) -> SnapshotChanges:
    """What `new` has that `old` has not, and the other way round; without an old one all is new."""
    return _compare(_captions(old.rows if old else ()), _captions(new.rows))


def changes_since_snapshot(store: ImageStore) -> SnapshotChanges:
    """What a snapshot made now would change over the newest one; images that are not cleaned yet do not count."""
    newest = latest_snapshot(store)
    with store.read() as session:
        accepted = select(ImageTable.id, ImageTable.sha256).where(ImageTable.verdict == "accepted")
        shas = {row.id: row.sha256 for row in session.execute(accepted)}
        captions = captions_of(session, list(shas))
    today = {sha256: captions.get(image_id) or ("",) for image_id, sha256 in shas.items()}
    return _compare(_captions(newest.rows if newest else ()), today)


def _captions(rows: Iterable[SnapshotRow]) -> dict[str, tuple[str, ...]]:
    return {row.sha256: row.captions for row in rows}


def _compare(old: dict[str, tuple[str, ...]], new: dict[str, tuple[str, ...]]) -> SnapshotChanges:
    return SnapshotChanges(
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        recaptioned=tuple(sorted(sha256 for sha256 in old.keys() & new.keys() if old[sha256] != new[sha256])),
    )
