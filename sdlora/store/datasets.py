"""Datasets of the image database: made, found by name, listed, renamed, deleted."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import case, delete, func, select
from sqlalchemy.orm import Session

from sdlora.core.config_base import MAX_NAME_CHARS, NAME_PATTERN
from sdlora.core.errors import DataError
from sdlora.core.quoting import quoted
from sdlora.store.bulk import insert_or_ignore
from sdlora.store.tables.base import utc_now
from sdlora.store.tables.datasets import (
    CaptionTable,
    DatasetTable,
    FileTable,
    MaskTable,
    MemberTable,
    OverrideTable,
    RulingTable,
    SourceTable,
)
from sdlora.store.tables.versions import SnapshotTable, VersionTable


@dataclass(frozen=True)
class DatasetFigures:
    """Dataset with its numbers of images and snapshots, as shown in a list.

    Attributes:
        images: members by now; `pending` of them have no verdict yet.
        versions: labels of the versions trained on its snapshots.
        deleted_at: time of the deletion, for a dataset that is kept because snapshots stand on it.
    """

    name: str
    made_at: datetime
    images: int
    accepted: int
    rejected: int
    pending: int
    snapshots: int
    versions: tuple[str, ...]
    deleted_at: datetime | None


def make_dataset(session: Session, name: str) -> int:
    """Return the id of the dataset with this name; make the dataset if it is new. `session` holds the write lock.

    Raises:
        DataError: the name is not allowed, or belongs to a deleted dataset.
    """
    _check_name(name)
    insert_or_ignore(session, DatasetTable, [{"name": name}])
    row = session.scalars(select(DatasetTable).where(DatasetTable.name == name)).one()
    if row.deleted_at is not None:
        raise DataError(
            f"Dataset {name!r} was deleted on {row.deleted_at:%Y-%m-%d}, and its snapshots are kept under this name. "
            "Choose another name."
        )
    return row.id


def find_dataset(session: Session, name: str) -> int | None:
    """Return the id of the dataset with this name; None if there is none, or if it was deleted."""
    is_there = (DatasetTable.name == name) & DatasetTable.deleted_at.is_(None)
    return session.scalars(select(DatasetTable.id).where(is_there)).one_or_none()


def require_dataset(session: Session, name: str) -> int:
    """Return the id of the dataset with this name.

    Raises:
        DataError: there is no such dataset; the message has the nearest names.
    """
    dataset_id = find_dataset(session, name)
    if dataset_id is None:
        names = dataset_names(session)
        nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        remedy = f"Nearest: {', '.join(nearest)}." if nearest else f"There are: {', '.join(names) or 'none'}."
        raise DataError(f"There is no dataset {name!r}. {remedy} `sdlora datasets list` shows them.")
    return dataset_id


def dataset_names(session: Session) -> list[str]:
    """List the names of all datasets that were not deleted, sorted."""
    return list(
        session.scalars(select(DatasetTable.name).where(DatasetTable.deleted_at.is_(None)).order_by(DatasetTable.name))
    )


def dataset_figures(session: Session) -> tuple[DatasetFigures, ...]:
    """List all datasets with their figures, sorted by name, deleted ones last."""
    is_accepted, is_rejected = (
        case((MemberTable.verdict == verdict, 1), else_=0) for verdict in ("accepted", "rejected")
    )
    counted = select(MemberTable.dataset_id, func.count(), func.sum(is_accepted), func.sum(is_rejected))
    counted = counted.where(MemberTable.removed_at.is_(None)).group_by(MemberTable.dataset_id)
    counts = {dataset_id: [int(count) for count in values] for dataset_id, *values in session.execute(counted)}
    snapshots = dict(
        session.execute(select(SnapshotTable.dataset_id, func.count()).group_by(SnapshotTable.dataset_id))
        .tuples()
        .all()
    )
    versions: dict[int, list[str]] = {}
    trained = select(SnapshotTable.dataset_id, VersionTable.name, VersionTable.number)
    trained = trained.join(VersionTable, VersionTable.snapshot_id == SnapshotTable.id)
    for dataset_id, name, number in session.execute(trained.order_by(VersionTable.name, VersionTable.number)):
        versions.setdefault(dataset_id, []).append(f"{name} version {number}")
    rows = session.scalars(select(DatasetTable).order_by(DatasetTable.deleted_at.is_not(None), DatasetTable.name)).all()
    figures = []
    for row in rows:
        images, accepted, rejected = counts.get(row.id, (0, 0, 0))
        figures.append(
            DatasetFigures(
                name=row.name,
                made_at=row.made_at,
                images=images,
                accepted=accepted,
                rejected=rejected,
                pending=images - accepted - rejected,
                snapshots=snapshots.get(row.id, 0),
                versions=tuple(versions.get(row.id, ())),
                deleted_at=row.deleted_at,
            )
        )
    return tuple(figures)


def rename_dataset(session: Session, name: str, new_name: str) -> None:
    """Give a dataset another name. Styles that name it in `data.dataset` have to be changed as well.

    Raises:
        DataError: there is no such dataset, or the new name is taken or not allowed.
    """
    dataset = session.get_one(DatasetTable, require_dataset(session, name))
    _check_name(new_name)
    if session.scalars(select(DatasetTable.id).where(DatasetTable.name == new_name)).first() is not None:
        raise DataError(f"There is a dataset {new_name!r} already, or there was one. Choose another name.")
    dataset.name = new_name


def delete_dataset(session: Session, name: str, *, force: bool = False) -> bool:
    """Delete a dataset; return whether a tombstone is kept. Its images stay in the database and in other datasets.

    Args:
        force: delete a dataset although snapshots stand on it. Its name and snapshots are kept, so that versions lead
            to their images.

    Raises:
        DataError: there is no such dataset, or snapshots stand on it and `force` is not set.
    """
    dataset = session.get_one(DatasetTable, require_dataset(session, name))
    standing = session.scalar(select(func.count()).where(SnapshotTable.dataset_id == dataset.id)) or 0
    if standing and not force:
        raise DataError(
            f"{standing} snapshots stand on dataset {name!r}, and versions may have been trained on them. With "
            "--force, its name and its snapshots are kept, and everything else of it is deleted."
        )
    _delete_members(session, dataset.id)
    if standing:
        dataset.deleted_at = utc_now()
    else:
        session.delete(dataset)
    return bool(standing)


def _delete_members(session: Session, dataset_id: int) -> None:
    members = select(MemberTable.id).where(MemberTable.dataset_id == dataset_id)
    sources = select(SourceTable.id).where(SourceTable.dataset_id == dataset_id)
    files = select(FileTable.id).where(FileTable.source_id.in_(sources))
    for table in (RulingTable, OverrideTable, CaptionTable):
        session.execute(delete(table).where(table.member_id.in_(members)))
    session.execute(delete(MaskTable).where(MaskTable.file_id.in_(files)))
    session.execute(delete(FileTable).where(FileTable.source_id.in_(sources)))
    session.execute(delete(SourceTable).where(SourceTable.dataset_id == dataset_id))
    session.execute(delete(MemberTable).where(MemberTable.dataset_id == dataset_id))


def _check_name(name: str) -> None:
    if not re.fullmatch(NAME_PATTERN, name) or len(name) > MAX_NAME_CHARS:
        raise DataError(
            f"Dataset {quoted(name)}: expected a name of at most {MAX_NAME_CHARS} lower-case letters, digits and "
            "hyphens, such as my-style."
        )
