"""Table of the queue in which trainings wait for a device."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from sdlora.store.tables.base import Base, utc_now


class TicketTable(Base):
    """Ticket of a run in the queue. The row stays after the run and records its outcome.

    The holder is the process that waits or trains. It proves with `token` that the ticket is still its own.
    """

    __tablename__ = "tickets"
    __table_args__ = (Index(None, "state"), Index(None, "style", "what"))

    id: Mapped[int] = mapped_column(primary_key=True)  # the order of the queue
    style: Mapped[str]  # style, or name of a base model
    dataset: Mapped[str | None]
    what: Mapped[str]
    asked_by: Mapped[str]
    state: Mapped[str]
    reason: Mapped[str | None]  # of the state
    run_digest: Mapped[str | None] = mapped_column(String(64))
    flow_run_id: Mapped[str | None] = mapped_column(String(36))
    machine: Mapped[str]
    pid: Mapped[int]
    process_start: Mapped[str]
    token: Mapped[str] = mapped_column(String(32))
    heartbeats: Mapped[int] = mapped_column(default=0)  # other machines see from its growth that the holder lives
    heartbeat_at: Mapped[datetime] = mapped_column(default=utc_now)  # of the database's clock
    device: Mapped[str | None]  # device of the slot, while running and afterwards
    cancelled_by: Mapped[str | None]  # person who asked the running holder to stop
    asked_at: Mapped[datetime] = mapped_column(default=utc_now)
    taken_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    settings_digest: Mapped[str | None] = mapped_column(String(64))  # None before r0002, and where a run has none
