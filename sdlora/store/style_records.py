"""Facts that a style's runs leave for later ones: the precision that `auto` chose, and the data dealt with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import cast

from sqlalchemy.orm import Session

from sdlora.core.refs import Precision
from sdlora.store.bulk import insert_or_ignore
from sdlora.store.image_store import ImageStore
from sdlora.store.location import StoreLocation
from sdlora.store.tables.base import utc_now
from sdlora.store.tables.triggers import StyleRecordTable


@dataclass(frozen=True)
class StyleRecord:
    """Record of a style; a value is None before a run has set it.

    Attributes:
        precision: choice for `training.precision: auto`, made by the style's first run.
        data_digest: digest of the dataset's rows that the last run dealt with, see `sdlora.store.inputs`.
        snapshot_digest: snapshot of that run.
        lesson_digest: digest of what people gave to the last run that has a version.
        run_digest: digest of that run.
        trainer: version of the training code in that digest.
        left_alone: digests of the dataset's rows and of the settings of the last run that was left alone.
    """

    precision: Precision | None = None
    data_digest: str | None = None
    snapshot_digest: str | None = None
    dealt_with_at: datetime | None = None
    lesson_digest: str | None = None
    run_digest: str | None = None
    trainer: int | None = None
    left_alone: tuple[str | None, str | None] = (None, None)


def style_record(session: Session, style: str) -> StyleRecord:
    """Read the record of a style; an empty one before its first run."""
    row = session.get(StyleRecordTable, style)
    if row is None:
        return StyleRecord()
    return StyleRecord(
        precision=cast("Precision | None", row.precision),
        data_digest=row.data_digest,
        snapshot_digest=row.snapshot_digest,
        dealt_with_at=row.dealt_with_at,
        lesson_digest=row.lesson_digest,
        run_digest=row.run_digest,
        trainer=row.trainer,
        left_alone=(row.left_data_digest, row.left_settings_digest),
    )


def recorded_precision(home: Path, style: str) -> Precision | None:
    """Return the precision that `auto` chose for a style; None before its first run, and without a database."""
    location = StoreLocation.of_home(home)
    if not location.may_hold_images:
        return None
    with ImageStore.open(home, location) as store, store.read() as session:
        return style_record(session, style).precision


def record_precision(session: Session, style: str, precision: Precision) -> Precision:
    """Record the choice for `auto`, unless there is one; return the recorded choice."""
    row = _row(session, style)
    row.precision = row.precision or precision
    return cast("Precision", row.precision)


def record_dealt_with(session: Session, style: str, data_digest: str, snapshot_digest: str) -> None:
    """Record that a run dealt with the data that it read, so that they are no news any more."""
    row = _row(session, style)
    row.data_digest, row.snapshot_digest, row.dealt_with_at = data_digest, snapshot_digest, utc_now()


def record_left_alone(session: Session, style: str, data_digest: str, settings_digest: str) -> None:
    """Record that a run left its data alone: they stay news, and start no run until they or the settings change."""
    row = _row(session, style)
    row.left_data_digest, row.left_settings_digest = data_digest, settings_digest


def forget_left_alone(session: Session, style: str) -> None:
    """Forget what was left alone, because a person started a run."""
    row = _row(session, style)
    row.left_data_digest = row.left_settings_digest = None


def record_lesson(session: Session, style: str, lesson_digest: str, run_digest: str, trainer: int) -> None:
    """Record what the newest version of a style learnt from, and the training code of that time."""
    row = _row(session, style)
    row.lesson_digest, row.run_digest, row.trainer = lesson_digest, run_digest, trainer


def _row(session: Session, style: str) -> StyleRecordTable:
    insert_or_ignore(session, StyleRecordTable, [{"style": style}])  # two first runs at once make one row
    return session.get_one(StyleRecordTable, style)
