"""Tables of the runs that new data starts."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String
from sqlalchemy import UniqueConstraint as Unique
from sqlalchemy.orm import Mapped, mapped_column

from sdlora.store.tables.base import Base, utc_now


class StyleRecordTable(Base):
    """Facts about a style that its runs leave for later ones."""

    __tablename__ = "style_records"

    style: Mapped[str] = mapped_column(primary_key=True)
    precision: Mapped[str | None]  # choice for `training.precision: auto`
    data_digest: Mapped[str | None] = mapped_column(String(64))  # rows of the dataset that the last run dealt with
    snapshot_digest: Mapped[str | None] = mapped_column(String(64))  # snapshot of that run
    dealt_with_at: Mapped[datetime | None]
    lesson_digest: Mapped[str | None] = mapped_column(String(64))  # of the last run that has a version
    run_digest: Mapped[str | None] = mapped_column(String(64))
    trainer: Mapped[int | None]  # version of the training code in `run_digest`
    left_data_digest: Mapped[str | None] = mapped_column(String(64))  # rows that the last run left alone
    left_settings_digest: Mapped[str | None] = mapped_column(String(64))  # settings of that run


class StartTable(Base):
    """Run that new data started. The row is written before the run is created, and its key makes the run once."""

    __tablename__ = "starts"
    __table_args__ = (Unique("key"), Index(None, "style"))

    id: Mapped[int] = mapped_column(primary_key=True)
    style: Mapped[str]
    data_digest: Mapped[str] = mapped_column(String(64))  # rows of the dataset at that time: the news
    new_images: Mapped[int]
    why: Mapped[str]
    key: Mapped[str]
    state: Mapped[str]  # asked, created, ended
    flow_run_id: Mapped[str | None] = mapped_column(String(36))
    asked_at: Mapped[datetime] = mapped_column(default=utc_now)
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None]  # last state of the run
    settings_digest: Mapped[str | None] = mapped_column(String(64))  # of the style at that time; None before r0002
