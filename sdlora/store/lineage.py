"""Lineage: links between images, datasets, snapshots and the versions trained on the snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from sdlora.core.errors import DataError, TakedownError
from sdlora.store.bulk import insert_or_ignore
from sdlora.store.overrides import purged_reasons
from sdlora.store.records import Split
from sdlora.store.tables.datasets import CaptionTable, DatasetTable, MemberTable
from sdlora.store.tables.images import ImageTable, TakedownTable
from sdlora.store.tables.versions import SnapshotImageTable, SnapshotTable, VersionTable


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
class AdoptedVersion:
    """Published adapter that was adopted from a file, so nobody knows the images that it learnt from."""

    name: str
    number: int
    adapter_digest: str
    recorded_at: datetime

    @property
    def label(self) -> str:
        return f"{self.name} version {self.number}"


@dataclass(frozen=True)
class SnapshotRecord:
    """Snapshot of a dataset as shown in a list.

    Attributes:
        parent: digest of the newest snapshot of the dataset when this one was made.
    """

    digest: str
    dataset: str
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


@dataclass(frozen=True)
class ImageLineage:
    """Image with what was made of it, in every dataset.

    Attributes:
        collected_at: time at which the image entered the database.
        datasets: names of the datasets that it belongs to.
        kept_for: SHA-256 of the images that are kept for it in datasets where it is a rejected copy.
        lent_captions: appearances of those images that have captions of this copy.
        adopted_versions: all versions that were adopted from files; whether they learnt from the image is unknown.
    """

    sha256: str
    collected_at: datetime
    datasets: tuple[str, ...]
    appearances: tuple[Appearance, ...]
    kept_for: tuple[str, ...] = ()
    lent_captions: tuple[Appearance, ...] = ()
    adopted_versions: tuple[AdoptedVersion, ...] = ()

    @property
    def trained_versions(self) -> tuple[TrainedVersion, ...]:
        """Versions trained on the image or its captions, without versions that were only evaluated on them."""
        return tuple(
            dict.fromkeys(
                version
                for appearance in (*self.appearances, *self.lent_captions)
                if appearance.split == "train"
                for version in appearance.snapshot.versions
            )
        )

    @property
    def trained_styles(self) -> tuple[str, ...]:
        """Names of the styles with a version that was trained on the image."""
        return tuple(sorted({version.name for version in self.trained_versions}))


def image_lineage(session: Session, sha256: str) -> ImageLineage:
    """Read the lineage of an image by its full SHA-256."""
    image = session.scalars(select(ImageTable).where(ImageTable.sha256 == sha256)).one()
    is_member = (MemberTable.image_id == image.id) & MemberTable.removed_at.is_(None)
    names = select(DatasetTable.name).join(MemberTable, MemberTable.dataset_id == DatasetTable.id).where(is_member)
    kept = aliased(MemberTable)
    lending = (
        select(MemberTable.id, kept)
        .join(kept, kept.id == MemberTable.copy_of_id)
        .where(MemberTable.image_id == image.id)
        .order_by(kept.id)
    )
    originals = session.execute(lending).tuples().all()
    return ImageLineage(
        sha256=image.sha256,
        collected_at=image.collected_at,
        datasets=tuple(session.scalars(names.order_by(DatasetTable.name))),
        appearances=appearances_of(session, image.id),
        kept_for=tuple(dict.fromkeys(original.image.sha256 for _, original in originals)),
        lent_captions=tuple(
            appearance
            for member_id, original in originals
            for appearance in _lent_captions(session, member_id, original)
        ),
        adopted_versions=adopted_versions(session),
    )


def _lent_captions(session: Session, copy_id: int, kept: MemberTable) -> list[Appearance]:
    """List the snapshots of the dataset in which the kept image has a caption that only its copy brought."""
    texts_by_id: dict[int, set[str]] = {copy_id: set(), kept.id: set()}
    statement = select(CaptionTable.member_id, CaptionTable.text).where(CaptionTable.member_id.in_(texts_by_id))
    for member_id, text in session.execute(statement):
        texts_by_id[member_id].add(text)
    lent = texts_by_id[copy_id] - texts_by_id[kept.id]
    dataset = session.get_one(DatasetTable, kept.dataset_id).name
    return [
        appearance
        for appearance in appearances_of(session, kept.image_id)
        if appearance.snapshot.dataset == dataset and not lent.isdisjoint(appearance.captions)
    ]


def record_version(
    session: Session,
    name: str,
    number: int,
    adapter_digest: str,
    snapshot_digest: str | None,
    dataset: str | None = None,
) -> None:
    """Record the snapshot that a published adapter was trained on; a repetition changes nothing.

    Args:
        snapshot_digest: None if the images of the training are unknown.
        dataset: name of the snapshot's dataset; several datasets may have equal snapshots.

    Raises:
        DataError: the store has no such snapshot.
        TakedownError: an image of the snapshot was purged, and the version is not recorded yet.
    """
    snapshot_id = None
    if snapshot_digest is not None:
        snapshot_id = _snapshot_id(session, f"{name} version {number}", snapshot_digest, dataset)
        require_publishable(session, name, number, snapshot_digest)
    row = {"name": name, "number": number, "adapter_digest": adapter_digest, "snapshot_id": snapshot_id}
    insert_or_ignore(session, VersionTable, [row])


def _snapshot_id(session: Session, version: str, snapshot_digest: str, dataset: str | None) -> int:
    with_digest = (
        select(SnapshotTable.id)
        .join(DatasetTable, DatasetTable.id == SnapshotTable.dataset_id)
        .where(SnapshotTable.digest == snapshot_digest)
        .order_by((DatasetTable.name == dataset).desc(), SnapshotTable.id)
    )
    snapshot_id = session.scalars(with_digest.limit(1)).first()
    if snapshot_id is None:
        raise DataError(f"Snapshot {snapshot_digest[:16]} of {version} is not in this image database.")
    return snapshot_id


def require_publishable(session: Session, name: str, number: int, snapshot_digest: str) -> None:
    """Refuse a new version whose snapshot holds a purged image. A version that is recorded may be published again.

    Raises:
        TakedownError: an image of the snapshot was purged.
    """
    is_recorded = (VersionTable.name == name) & (VersionTable.number == number)
    if session.scalars(select(VersionTable.id).where(is_recorded)).one_or_none() is not None:
        return
    statement = (
        select(ImageTable.sha256)
        .join(TakedownTable, TakedownTable.image_id == ImageTable.id)
        .join(SnapshotImageTable, SnapshotImageTable.image_id == ImageTable.id)
        .join(SnapshotTable, SnapshotTable.id == SnapshotImageTable.snapshot_id)
        .where(SnapshotTable.digest == snapshot_digest)
    )
    for sha256, reason in purged_reasons(session, session.scalars(statement.limit(1)).all()).items():
        raise TakedownError(
            f"{name} version {number} cannot be published: image {sha256[:12]} of its snapshot was {reason}. Nothing "
            "that learnt from it is kept. Start the run again: it works without the image."
        )


def adopted_versions(session: Session) -> tuple[AdoptedVersion, ...]:
    """List the versions whose training images are unknown, by style and number."""
    statement = select(VersionTable).where(VersionTable.snapshot_id.is_(None))
    rows = session.scalars(statement.order_by(VersionTable.name, VersionTable.number))
    return tuple(AdoptedVersion(row.name, row.number, row.adapter_digest, row.recorded_at) for row in rows)


def require_usable(session: Session, name: str, number: int) -> None:
    """Refuse a version that learnt from an image that was purged since, before it becomes the champion.

    Raises:
        TakedownError: a training image of the version was purged.
    """
    statement = (
        select(ImageTable.sha256)
        .join(TakedownTable, TakedownTable.image_id == ImageTable.id)
        .join(SnapshotImageTable, SnapshotImageTable.image_id == ImageTable.id)
        .join(VersionTable, VersionTable.snapshot_id == SnapshotImageTable.snapshot_id)
        .where((VersionTable.name == name) & (VersionTable.number == number), SnapshotImageTable.split == "train")
    )
    for sha256, reason in purged_reasons(session, session.scalars(statement.limit(1)).all()).items():
        raise TakedownError(
            f"{name} version {number} learnt from image {sha256[:12]}, which was {reason}. It does not become the "
            f"champion. `sdlora run {name}` trains a version without the image."
        )


def published_digests(session: Session) -> set[str]:
    """Return the digests of all published adapters."""
    return set(session.scalars(select(VersionTable.adapter_digest)))


def list_snapshots(
    session: Session, dataset_id: int | None = None, limit: int | None = None
) -> tuple[SnapshotRecord, ...]:
    """List snapshots of one or of every dataset, the newest first."""
    statement = _select_snapshots().order_by(SnapshotTable.id.desc()).limit(limit)
    return _snapshots(session, statement if dataset_id is None else statement.where(_is_of(dataset_id)))


def find_snapshot(session: Session, digest: str, dataset_id: int | None = None) -> SnapshotRecord:
    """Find the snapshot whose digest starts with the digits; of equal snapshots of several datasets, the first.

    Raises:
        DataError: no snapshot, or more than one, starts with the digits.
    """
    statement = _select_snapshots().where(SnapshotTable.digest.startswith(digest.lower(), autoescape=True))
    if dataset_id is not None:
        statement = statement.where(_is_of(dataset_id))
    first_ids = select(func.min(SnapshotTable.id)).group_by(SnapshotTable.digest)
    if dataset_id is None:
        statement = statement.where(SnapshotTable.id.in_(first_ids))
    matches = _snapshots(session, statement.limit(3))
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


def _is_of(dataset_id: int) -> ColumnElement[bool]:
    return SnapshotTable.dataset_id == dataset_id


def _select_snapshots() -> Select[tuple[SnapshotTable, str, str | None]]:
    parent = aliased(SnapshotTable)
    # The outer join gives None without a parent, which the type of the column excludes.
    digest = cast("InstrumentedAttribute[str | None]", parent.digest)
    return (
        select(SnapshotTable, DatasetTable.name, digest)
        .join(DatasetTable, DatasetTable.id == SnapshotTable.dataset_id)
        .outerjoin(parent, parent.id == SnapshotTable.parent_id)
    )


def _snapshots(
    session: Session, statement: Select[tuple[SnapshotTable, str, str | None]]
) -> tuple[SnapshotRecord, ...]:
    rows = session.execute(statement).all()
    versions = _versions(session, [row.id for row, _, _ in rows])
    return tuple(
        SnapshotRecord(
            digest=row.digest,
            dataset=dataset,
            parent=parent,
            made_at=row.made_at,
            train_count=row.train_count,
            held_out_count=row.held_out_count,
            versions=versions.get(row.id, ()),
        )
        for row, dataset, parent in rows
    )


def _versions(session: Session, snapshot_ids: Sequence[int]) -> dict[int, tuple[TrainedVersion, ...]]:
    """Read the versions trained on each snapshot, by its id."""
    statement = (
        select(VersionTable, SnapshotTable.digest)
        .join(SnapshotTable, SnapshotTable.id == VersionTable.snapshot_id)
        .where(VersionTable.snapshot_id.in_(snapshot_ids))
        .order_by(VersionTable.name, VersionTable.number)
    )
    versions: dict[int, tuple[TrainedVersion, ...]] = {}
    for row, digest in session.execute(statement):
        version = TrainedVersion(row.name, row.number, row.adapter_digest, digest, row.recorded_at)
        assert row.snapshot_id is not None  # joined
        versions[row.snapshot_id] = (*versions.get(row.snapshot_id, ()), version)
    return versions
