"""Digests of the rows of the image database that a run of a style reads, and that other styles' runs leave alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import closing

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.orm import Session

from sdlora.store.datasets import find_dataset
from sdlora.store.tables.datasets import CaptionTable, FileTable, MaskTable, MemberTable, OverrideTable
from sdlora.store.tables.images import ImageTable, TakedownTable
from sdlora.store.tables.ratings import RatingTable
from sdlora.store.tables.versions import ChampionHistoryTable, VersionTable

ROWS_AT_A_TIME = 10_000


def dataset_digest(session: Session, dataset: str) -> str:
    """Compute a digest of what people and sources recorded in a dataset.

    Verdicts are no part of the digest: cleaning decides them from these rows, the settings and the code.
    """
    return _digest(session, _dataset_statements(find_dataset(session, dataset)))


def style_digest(session: Session, style: str) -> str:
    """Compute a digest of a style's versions and of the history of its champion."""
    versions, history = VersionTable.__table__.c, ChampionHistoryTable.__table__.c
    statements = [
        select(*versions).where(versions.name == style).order_by(versions.id),
        select(*history).where(history.style == style).order_by(history.id),
    ]
    return _digest(session, statements)


def _digest(session: Session, statements: Iterable[Select[tuple[object, ...]]]) -> str:
    """Compute the digest of the rows as the driver gives them, because SQLAlchemy's rows cost more than the reading."""
    digest = hashlib.sha256()
    for statement in statements:
        with closing(session.connection().execute(statement)) as result:
            while rows := result.cursor.fetchmany(ROWS_AT_A_TIME):
                digest.update(repr(rows).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _dataset_statements(dataset_id: int | None) -> Iterator[Select[tuple[object, ...]]]:
    members, captions, files, masks = (table.__table__.c for table in (MemberTable, CaptionTable, FileTable, MaskTable))
    of_dataset: ColumnElement[bool] = MemberTable.dataset_id == dataset_id
    yield (
        select(members.id, members.image_id, members.source, members.licence, members.removed_at)
        .where(of_dataset)
        .order_by(members.id)
    )
    for table in (captions, files):
        names = [column for column in table if column.name != "path"]
        yield select(*names).join(MemberTable, table.member_id == MemberTable.id).where(of_dataset).order_by(table.id)
    yield select(*masks).join(FileTable).join(MemberTable).where(of_dataset).order_by(masks.file_id)
    overrides, ratings = OverrideTable.__table__.c, RatingTable.__table__.c
    yield select(*overrides).join(MemberTable).where(of_dataset).order_by(overrides.id)
    of_image = MemberTable.image_id == ImageTable.id
    yield (
        select(*ratings)
        .join(ImageTable, ImageTable.sha256 == ratings.sha256)
        .join(MemberTable, of_image)
        .where(of_dataset)
        .order_by(ratings.id)
    )
    takedowns = TakedownTable.__table__.c
    yield (
        select(takedowns.image_id)
        .join(MemberTable, MemberTable.image_id == takedowns.image_id)
        .where(of_dataset)
        .order_by(takedowns.image_id)
    )
