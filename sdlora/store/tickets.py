"""Tickets of runs: the queue of the devices, and the outcome of each run that has ended."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile
from typing import Literal, cast

from sqlalchemy import Select, and_, case, func, not_, or_, select
from sqlalchemy.orm import Session

from sdlora.processes.identity import ProcessIdentity
from sdlora.store.tables.base import utc_now
from sdlora.store.tables.tickets import TicketTable

AskedBy = Literal["person", "clock", "trigger"]
Work = Literal["retrain", "adopt", "compare", "pretrain"]
Outcome = Literal["done", "skipped", "cancelled", "failed", "lost"]
"""Outcome of an ended run. "skipped": the run had nothing to do. "lost": its process ended without a report, or was
stopped by the system; the next run continues it."""
TicketState = Literal["waiting", "running"] | Outcome

MAX_FAILURES = 3
"""Failures of a run in the same way, after which the clock and new data leave it alone."""
ACTIVE: tuple[TicketState, ...] = ("waiting", "running")


@dataclass(frozen=True)
class Request:
    """Request of a run for a device.

    Attributes:
        style: style, or name of the base model that is made.
        run_digest: digest of the run; None where a run has none.
        settings_digest: digest of the style's settings, also of those that are not part of the run's digest.
        flow_run_id: id of the flow run in Prefect.
    """

    style: str
    what: Work = "retrain"
    asked_by: AskedBy = "person"
    dataset: str | None = None
    run_digest: str | None = None
    flow_run_id: str | None = None
    settings_digest: str | None = None

    @property
    def subject(self) -> tuple[str, str]:
        """Value that two requests share if they must not run at the same time, such as two that publish versions."""
        return self.style, "versions" if self.what in ("retrain", "adopt") else self.what


@dataclass(frozen=True)
class Ticket:
    """Row of the queue.

    Attributes:
        holder: process that waits, trains or has ended.
        heartbeats: number that grows while the holder lives.
        device: device of its slot; None before the ticket has one.
        cancelled_by: person who asked to stop the run.
    """

    id: int
    request: Request
    state: TicketState
    reason: str | None
    holder: ProcessIdentity
    heartbeats: int
    heartbeat_at: datetime
    device: str | None
    cancelled_by: str | None
    asked_at: datetime
    taken_at: datetime | None
    ended_at: datetime | None
    token: str = field(repr=False)

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE

    @property
    def title(self) -> str:
        """Style, with the kind of work unless it is a run of the loop."""
        what = self.request.what
        return self.request.style if what == "retrain" else f"{self.request.style} ({what})"

    @property
    def since(self) -> str:
        """Description of an active ticket such as `comics trains since 03:12`."""
        verb, time = ("waits", self.asked_at) if self.taken_at is None else ("trains", self.taken_at)
        return f"{self.title} {verb} since {time.astimezone():%H:%M}"


def active_tickets(session: Session) -> list[Ticket]:
    """List the running tickets, the longest first, then the waiting ones in the order of the queue."""
    is_waiting = case((TicketTable.state == "waiting", 1), else_=0)
    is_of_clock = case((TicketTable.asked_by == "person", 0), else_=1)
    queue = is_waiting * is_of_clock  # a running ticket has no precedence any more
    statement = select(TicketTable).where(TicketTable.state.in_(ACTIVE)).order_by(is_waiting, queue, TicketTable.id)
    return _tickets(session, statement)


def ended_tickets(session: Session, limit: int) -> list[Ticket]:
    """List the tickets that ended last, the newest first."""
    statement = select(TicketTable).where(TicketTable.state.not_in(ACTIVE))
    return _tickets(session, statement.order_by(TicketTable.ended_at.desc(), TicketTable.id.desc()).limit(limit))


def tickets_of_run(session: Session, style: str, run_digest: str, settings_digest: str | None = None) -> list[Ticket]:
    """List the ended tickets of a run of the loop, the newest first.

    Args:
        settings_digest: leaves out tickets of other settings. Tickets whose settings are unknown stay in.
    """
    statement = _ended_of([style]).where(TicketTable.run_digest == run_digest, TicketTable.state != "skipped")
    if settings_digest is not None:
        known = TicketTable.settings_digest
        statement = statement.where(or_(known.is_(None), known == settings_digest))
    return _tickets(session, statement.order_by(TicketTable.id.desc()))


def cancelled_ticket(
    session: Session, style: str, run_digest: str, settings_digest: str | None = None
) -> Ticket | None:
    """Return the ticket by which a person cancelled a run, unless a person has started the run again since.

    Args:
        settings_digest: see `tickets_of_run`.
    """
    newest = next(iter(tickets_of_run(session, style, run_digest, settings_digest)), None)
    return newest if newest and newest.state == "cancelled" else None


def cancelled_early(session: Session, style: str, settings_digest: str) -> Ticket | None:
    """Return the ticket by which a person cancelled a run before it knew its digest, if it is the last word on it.

    Runs of the clock and of new data that failed before they had a digest, and skipped ones, change nothing about it.
    """
    is_early = TicketTable.run_digest.is_(None)
    is_by_itself = and_(is_early, TicketTable.state == "failed", TicketTable.asked_by != "person")
    statement = _ended_of([style]).where(TicketTable.state != "skipped", not_(is_by_itself))
    newest = session.scalars(statement.order_by(TicketTable.id.desc()).limit(1)).first()
    is_cancel = newest is not None and newest.state == "cancelled" and newest.run_digest is None
    return ticket_of(newest) if newest and is_cancel and newest.settings_digest == settings_digest else None


def failures_alike(session: Session, style: str, run_digest: str, settings_digest: str | None = None) -> list[Ticket]:
    """List the last failures of a run, the newest first, as long as their reasons differ in numbers only.

    Runs that were stopped by the system, or killed, say nothing about the run and are left out.

    Args:
        settings_digest: see `tickets_of_run`.
    """
    ended = tickets_of_run(session, style, run_digest, settings_digest)
    tickets = [ticket for ticket in ended if ticket.state != "lost"]
    return list(takewhile(lambda one: one.state == "failed" and _kind(one) == _kind(tickets[0]), tickets))


def unreported_ends(
    session: Session, since: datetime | None = None, run: tuple[str, str] | None = None
) -> list[Ticket]:
    """List the runs of the loop that Prefect knows and whose processes ended without a report, the newest first.

    Args:
        since: leaves out those whose last sign of life is older.
        run: style and digest of the only run to list.
    """
    statement = select(TicketTable).where(
        TicketTable.what == "retrain",
        TicketTable.flow_run_id.is_not(None),
        TicketTable.state.in_((*ACTIVE, "lost")),
    )
    if since is not None:
        statement = statement.where(TicketTable.heartbeat_at >= since)
    if run is not None:
        statement = statement.where(TicketTable.style == run[0], TicketTable.run_digest == run[1])
    tickets = _tickets(session, statement.order_by(TicketTable.id.desc()))
    return [ticket for ticket in tickets if ticket.state == "lost" or ticket.holder.has_ended]


def record_cancelled(session: Session, ticket: Ticket, reason: str) -> None:
    """Record that a person cancelled a run whose process could not report it; nothing if it has an end by now."""
    row = session.get_one(TicketTable, ticket.id)
    if row.token == ticket.token and row.state in (*ACTIVE, "lost"):
        row.state, row.reason, row.ended_at = "cancelled", reason, row.ended_at or utc_now()


def _kind(ticket: Ticket) -> str:
    return re.sub(r"\d+", "0", ticket.reason or "")


def last_runs(session: Session, styles: Iterable[str]) -> dict[str, Ticket]:
    """Return the ticket of each style's last ended run of the loop; styles without one are left out."""
    ended = (TicketTable.what == "retrain", TicketTable.state.not_in(ACTIVE), TicketTable.style.in_(list(styles)))
    order = (TicketTable.ended_at.desc(), TicketTable.id.desc())
    place = func.row_number().over(partition_by=TicketTable.style, order_by=order).label("place")
    places = select(TicketTable.id, place).where(*ended).subquery()
    newest = select(places.c.id).where(places.c.place == 1)
    statement = select(TicketTable).where(TicketTable.id.in_(newest))
    return {ticket.request.style: ticket for ticket in _tickets(session, statement)}


def record_skipped(session: Session, request: Request, reason: str) -> None:
    """Record a run that ended without a ticket, because it had nothing to do."""
    row = new_row(request, ProcessIdentity.of_this_process(), token="")
    row.state, row.reason, row.ended_at = "skipped", reason, utc_now()
    session.add(row)


def new_row(request: Request, holder: ProcessIdentity, token: str) -> TicketTable:
    """Make the row of a waiting ticket."""
    return TicketTable(
        style=request.style,
        dataset=request.dataset,
        what=request.what,
        asked_by=request.asked_by,
        run_digest=request.run_digest,
        flow_run_id=request.flow_run_id,
        settings_digest=request.settings_digest,
        state="waiting",
        machine=holder.machine,
        pid=holder.pid,
        process_start=holder.start,
        token=token,
    )


def ticket_of(row: TicketTable) -> Ticket:
    """Convert a row to its value."""
    request = Request(
        style=row.style,
        what=cast("Work", row.what),
        asked_by=cast("AskedBy", row.asked_by),
        dataset=row.dataset,
        run_digest=row.run_digest,
        flow_run_id=row.flow_run_id,
        settings_digest=row.settings_digest,
    )
    return Ticket(
        id=row.id,
        request=request,
        state=cast("TicketState", row.state),
        reason=row.reason,
        holder=ProcessIdentity(row.machine, row.pid, row.process_start),
        heartbeats=row.heartbeats,
        heartbeat_at=row.heartbeat_at,
        device=row.device,
        cancelled_by=row.cancelled_by,
        asked_at=row.asked_at,
        taken_at=row.taken_at,
        ended_at=row.ended_at,
        token=row.token,
    )


def _ended_of(styles: Sequence[str]) -> Select[tuple[TicketTable]]:
    return select(TicketTable).where(
        TicketTable.what == "retrain", TicketTable.state.not_in(ACTIVE), TicketTable.style.in_(styles)
    )


def _tickets(session: Session, statement: Select[tuple[TicketTable]]) -> list[Ticket]:
    return [ticket_of(row) for row in session.scalars(statement)]
