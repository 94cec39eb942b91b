"""Runs that new data started: each is recorded before it is created, and its key makes it exactly one run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, cast

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from sdlora.store.tables.base import utc_now
from sdlora.store.tables.triggers import StartTable

StartState = Literal["asked", "created", "ended"]
KEY_PREFIX = "sdlora-ready-"
"""Start of the idempotency key of every run that new data started."""
RETRY_MINUTES = (15, 60)
"""Waiting time after a run that did not deal with its news. After one more such run, the news are given up."""
_COMPLETED, _CANCELLED, _CRASHED = "Completed", "Cancelled", "Crashed"  # names of Prefect's states
MAX_TRIES = len(RETRY_MINUTES) + 1


@dataclass(frozen=True)
class Start:
    """Run that new data started.

    Attributes:
        data_digest: digest of the dataset's rows at that time.
        settings_digest: digest of the style's settings at that time; None if they are unknown.
        key: idempotency key, with which Prefect creates one run however often it is asked.
        state: "asked" until the run is created, "ended" once it has ended or cannot be created.
        outcome: how the run ended.
    """

    id: int
    style: str
    data_digest: str
    new_images: int
    why: str
    key: str
    state: StartState
    flow_run_id: str | None
    asked_at: datetime
    ended_at: datetime | None
    outcome: str | None
    settings_digest: str | None = None

    @property
    def is_cancelled(self) -> bool:
        return (self.outcome or "").startswith(_CANCELLED)


def open_starts(session: Session) -> list[Start]:
    """List the starts of all styles whose runs have not ended, the oldest first."""
    rows = session.scalars(select(StartTable).where(StartTable.state != "ended").order_by(StartTable.id))
    return [_start(row) for row in rows]


def starts_of(session: Session, style: str, data_digest: str, settings_digest: str) -> list[Start]:
    """List the starts of a style for the same news with the same settings, the oldest first.

    Starts whose settings are unknown count as well.
    """
    known = StartTable.settings_digest
    statement = select(StartTable).where(
        StartTable.style == style,
        StartTable.data_digest == data_digest,
        or_(known.is_(None), known == settings_digest),
    )
    return [_start(row) for row in session.scalars(statement.order_by(StartTable.id))]


def open_start(session: Session, style: str) -> Start | None:
    """Return the start of a style whose run has not ended."""
    statement = select(StartTable).where(StartTable.style == style, StartTable.state != "ended").limit(1)
    row = session.scalars(statement).first()
    return _start(row) if row else None


def ask_start(session: Session, style: str, data_digest: str, settings_digest: str, new_images: int, why: str) -> Start:
    """Record a start before its run is created. `session` holds the write lock, so no other process asks too."""
    tries = len(starts_of(session, style, data_digest, settings_digest))
    row = StartTable(
        style=style,
        data_digest=data_digest,
        settings_digest=settings_digest,
        new_images=new_images,
        why=why,
        key=f"{KEY_PREFIX}{style}-{data_digest[:16]}-{settings_digest[:16]}-{tries + 1}",
        state="asked",
    )
    session.add(row)
    session.flush()
    return _start(row)


def record_created(session: Session, start: Start, flow_run_id: str) -> None:
    """Record the run of a start."""
    row = session.get_one(StartTable, start.id)
    row.state, row.flow_run_id = "created", flow_run_id


def end_start(session: Session, start: Start, outcome: str) -> None:
    """Record that the run of a start has ended, or that it cannot be created."""
    row = session.get_one(StartTable, start.id)
    row.state, row.outcome, row.ended_at = "ended", outcome, utc_now()


def next_try_at(tries: Sequence[Start]) -> datetime | None:
    """Return the time of the next start for the same news; None after the last one, or if a person cancelled it.

    A run that completed without dealing with its news met an obstacle, such as another run of the style. Runs that
    were killed or stopped, such as by a reboot, continue from their checkpoint. Neither is counted.
    """
    last = tries[-1]
    failures = failed(tries)
    if len(failures) >= MAX_TRIES or last.is_cancelled or last.ended_at is None:
        return None
    minutes = RETRY_MINUTES[len(failures) - 1] if last in failures else RETRY_MINUTES[0]
    return last.ended_at + timedelta(minutes=minutes)


def failed(tries: Iterable[Start]) -> list[Start]:
    """Return the starts whose runs count as failures, see `next_try_at`."""
    return [one for one in tries if not (one.outcome or "").startswith((_COMPLETED, _CRASHED))]


def _start(row: StartTable) -> Start:
    return Start(
        id=row.id,
        style=row.style,
        data_digest=row.data_digest,
        settings_digest=row.settings_digest,
        new_images=row.new_images,
        why=row.why,
        key=row.key,
        state=cast("StartState", row.state),
        flow_run_id=row.flow_run_id,
        asked_at=row.asked_at,
        ended_at=row.ended_at,
        outcome=row.outcome,
    )
