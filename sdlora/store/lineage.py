"""Lineage: links between images, snapshots and the versions trained on the snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from sqlalchemy import Select, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from sdlora.core.errors import DataError, TakedownError
from sdlora.store.intake import insert_or_ignore
from sdlora.store.overrides import PURGED
from sdlora.store.records import Split
from sdlora.store.tables import ImageTable, SnapshotImageTable, SnapshotTable, VersionTable


@dataclass(frozen=True)
class TrainedVersion:
    """Published adapter and the snapshot that it was trained on."""

    name: str
    number: int
    adapter_digest: str
    snapshot_digest: str
    recorded_at: datetime

    @property
    def label(self) -> str:
        return f"{self.name} version {self.number}"


@dataclass(frozen=True)
class SnapshotRecord:
    """Snapshot as shown in a list. `parent` is the digest of the newest snapshot when this one was made."""

    digest: str
    parent: str | None
    made_at: datetime
    train_count: int
    held_out_count: int
    versions: tuple[TrainedVersion, ...]


@dataclass(frozen=True)
class Appearance:
    """Appearance of an image in a snapshot."""

    snapshot: SnapshotRecord
    split: Split
    captions: tuple[str, ...]
    weight: float = 1.0


def record_version(session: Session, name: str, number: int, adapter_digest: str, snapshot_digest: str) -> None:
    """Record the snapshot that a published adapter was trained on; a repetition changes nothing.

    Raises:
        DataError: the store has no such snapshot.
        TakedownError: an image of the snapshot was purged, and the version is not recorded yet.
    """
    snapshot_id = session.scalars(select(SnapshotTable.id).where(SnapshotTable.digest == snapshot_digest)).one_or_none()
    if snapshot_id is None:
        raise DataError(f"Snapshot {snapshot_digest[:16]} of {name} version {number} is not in this image database.")
    require_publishable(session, name, number, snapshot_digest)
    row = {"name": name, "number": number, "adapter_digest": adapter_digest, "snapshot_id": snapshot_id}
    insert_or_ignore(session, VersionTable, [row])


def require_publishable(session: Session, name: str, number: int, snapshot_digest: str) -> None:
    """Refuse a new version whose snapshot holds a purged image. A version that is recorded may be published again.

    Raises:
        TakedownError: an image of the snapshot was purged.
    """
    is_recorded = (VersionTable.name == name) & (VersionTable.number == number)
    if session.scalars(select(VersionTable.id).where(is_recorded)).one_or_none() is not None:
        return
    is_purged = (SnapshotTable.digest == snapshot_digest) & (ImageTable.rejected_by == PURGED)
    statement = (
        select(ImageTable.sha256, ImageTable.reason)
        .join(SnapshotImageTable, SnapshotImageTable.image_id == ImageTable.id)
        .join(SnapshotTable, SnapshotTable.id == SnapshotImageTable.snapshot_id)
    )
    purged = session.execute(statement.where(is_purged).limit(1)).first()
    if purged is not None:
        raise TakedownError(
            f"{name} version {number} cannot be published: image {purged.sha256[:12]} of its snapshot was "
            f"{purged.reason}. Nothing that learnt from it is kept. Start the run again: it works without the image."
        )


def published_digests(session: Session) -> set[str]:
    """Return the digests of all published adapters."""
    return set(session.scalars(select(VersionTable.adapter_digest)))


def list_snapshots(session: Session, limit: int | None = None) -> tuple[SnapshotRecord, ...]:
    """List snapshots, the newest first."""
    return _snapshots(session, _select_snapshots().order_by(SnapshotTable.id.desc()).limit(limit))


def find_snapshot(session: Session, digest: str) -> SnapshotRecord:
    """Find the snapshot whose digest starts with the digits.

    Raises:
        DataError: no snapshot, or more than one, starts with the digits.
    """
    has_prefix = SnapshotTable.digest.startswith(digest.lower(), autoescape=True)
    matches = _snapshots(session, _select_snapshots().where(has_prefix).limit(3))
    if len(matches) != 1 or not digest:
        names = ", ".join(snapshot.digest[:16] for snapshot in matches) or "none"
        raise DataError(
            f"Snapshot {digest!r}: expected the first digits of one snapshot's digest, found {names}. "
            "`sdlora snapshot list` shows them."
        )
    return matches[0]


def appearances_of(session: Session, image_id: int) -> tuple[Appearance, ...]:
    """List the snapshots that contain an image, the oldest first."""
    rows = session.execute(
        select(
            SnapshotImageTable.snapshot_id,
            SnapshotImageTable.split,
            SnapshotImageTable.captions,
            SnapshotImageTable.weight,
        )
        .where(SnapshotImageTable.image_id == image_id)
        .order_by(SnapshotImageTable.snapshot_id)
    ).all()
    snapshot_ids = select(SnapshotImageTable.snapshot_id).where(SnapshotImageTable.image_id == image_id)
    snapshots = _snapshots(
        session, _select_snapshots().where(SnapshotTable.id.in_(snapshot_ids)).order_by(SnapshotTable.id)
    )
    return tuple(
        Appearance(snapshot, cast("Split", row.split), tuple(row.captions), row.weight or 1.0)
        for snapshot, row in zip(snapshots, rows, strict=True)
    )


def _select_snapshots() -> Select[tuple[SnapshotTable, str | None]]:
    parent = aliased(SnapshotTable)
    # The outer join gives None without a parent, which the type of the column excludes.
    digest = cast("InstrumentedAttribute[str | None]", parent.digest)
    return select(SnapshotTable, digest).outerjoin(parent, parent.id == SnapshotTable.parent_id)


def _snapshots(session: Session, statement: Select[tuple[SnapshotTable, str | None]]) -> tuple[SnapshotRecord, ...]:
    rows = session.execute(statement).all()
    versions = _versions(session, [row.id for row, _ in rows])
    return tuple(
        SnapshotRecord(
            digest=row.digest,
            parent=parent,
            made_at=row.made_at,
            train_count=row.train_count,
            held_out_count=row.held_out_count,
            versions=tuple(version for version in versions if version.snapshot_digest == row.digest),
        )
        for row, parent in rows
    )


def _versions(session: Session, snapshot_ids: Sequence[int]) -> list[TrainedVersion]:
    statement = (
        select(VersionTable, SnapshotTable.digest)
        .join(SnapshotTable, SnapshotTable.id == VersionTable.snapshot_id)
        .where(VersionTable.snapshot_id.in_(snapshot_ids))
        .order_by(VersionTable.name, VersionTable.number)
    )
    return [
        TrainedVersion(row.name, row.number, row.adapter_digest, digest, row.recorded_at)
        for row, digest in session.execute(statement)
    ]
