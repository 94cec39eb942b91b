"""Queue of the runs that need a device: one table of tickets, whatever program starts a run.

A machine has slots, each with a device; the environment variable SDLORA_DEVICES names them. A run holds a slot while it
trains. The head of a machine's queue takes the next free slot: a person's run first, then in the order of the tickets.

A holder that was killed is noticed at once on its own machine, because its process is gone. A holder on another machine
is lost if its count of heartbeats did not grow for `SILENT_SECONDS`, measured by the observer's own steady clock while
the database answered. So neither a changed clock nor an outage of the database takes a slot from a living run. Each
ticket has a token. A holder that was taken for lost finds out at its next heartbeat, and stops.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import update
from sqlalchemy.orm import Session

from sdlora.core.errors import TrainingError
from sdlora.processes.identity import ProcessIdentity
from sdlora.processes.slots import AUTO
from sdlora.store.clock import database_now
from sdlora.store.database import Database
from sdlora.store.tables.base import utc_now
from sdlora.store.tables.tickets import TicketTable
from sdlora.store.tickets import Outcome, Request, Ticket, active_tickets, new_row, ticket_of

HEARTBEAT_SECONDS = 5.0
SILENT_SECONDS = 120.0
_POLL_SECONDS = 1.0
_LONGEST_LOOK_SECONDS = 5.0  # a longer time between two looks says nothing about the holder
_KILLED = "The process ended without a report."
_SILENT = "Its machine gave no sign of life."


class AlreadyQueuedError(TrainingError):
    """Second run of a style while one waits or trains."""

    def __init__(self, ticket: Ticket, place: Place | None) -> None:
        self.ticket, self.place = ticket, place
        where = f", {place.ordinal} in the queue" if place else ""
        since = ticket.since.replace(" waits since", " already waits since").replace(" trains ", " already trains ")
        super().__init__(f"{since}{where}. Wait for this run, or end it: sdlora cancel {ticket.request.style}")


class TicketCancelledError(TrainingError):
    """Run that was cancelled while it waited."""


class SlotLostError(TrainingError):
    """Slot that was given to another run, because this process gave no sign of life."""


@dataclass(frozen=True)
class Place:
    """Place of a waiting ticket in the queue of its machine.

    Attributes:
        number: 1 for the head of the queue.
        training: tickets that hold the slots.
        waiting: tickets before this one.
    """

    number: int
    training: tuple[Ticket, ...] = ()
    waiting: tuple[Ticket, ...] = ()

    @property
    def ordinal(self) -> str:
        return ordinal(self.number)

    @property
    def text(self) -> str:
        """Place and reason, such as `2nd in the queue: comics trains since 03:12, props waits since 03:14`."""
        before = ", ".join(ticket.since for ticket in (*self.training, *self.waiting))
        return f"{self.ordinal} in the queue: {before}" if before else f"{self.ordinal} in the queue"


def ordinal(number: int) -> str:
    """Format a place: `1st`, `2nd`, `11th`."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


class TrainingQueue:
    """Queue as one process sees it. Each method is one or two short transactions."""

    def __init__(
        self, database: Database, slots: Sequence[str] = (AUTO,), silent_seconds: float = SILENT_SECONDS
    ) -> None:
        self._database, self._slots, self._silent_seconds = database, tuple(slots), silent_seconds
        self._me = ProcessIdentity.of_this_process()
        self._looks: dict[int, _Look] = {}
        self._beaten_at = float("-inf")

    def tickets(self) -> list[Ticket]:
        """List the active tickets; those of killed processes count as lost and are left out."""
        with self._database.read() as session:
            return [ticket for ticket in active_tickets(session) if not ticket.holder.has_ended]

    def ask(self, request: Request, sleep: Callable[[float], None] = time.sleep) -> Ticket:
        """Join the queue.

        A waiting run of the clock with the same digest moves forward if a person asks for it.

        Args:
            sleep: waits between two looks at a run of the style that another machine may have lost.

        Raises:
            AlreadyQueuedError: a run of the style waits or trains.
        """
        while True:
            with self._database.write() as session:
                tickets = self._without_lost(session)
                same = [one for one in tickets if one.request.subject == request.subject]
                if not same:
                    row = new_row(request, self._me, secrets.token_hex(16))
                    row.heartbeat_at = database_now(session)
                    session.add(row)
                    session.flush()
                    self._beaten_at = time.monotonic()
                    return ticket_of(row)
                if not self._may_be_lost(session, same[0]):
                    other = self._moved_forward(session, same[0], request)
                    break
            sleep(_POLL_SECONDS)
        place = self._place(other, self.tickets()) if other.state == "waiting" else None
        raise AlreadyQueuedError(other, place)

    def take(self, ticket: Ticket) -> Ticket | Place:
        """Take a slot if the ticket is the head of the queue and a slot is free; else return the place of the ticket.

        Also gives a sign of life. Call it every second while the ticket waits.

        Raises:
            TicketCancelledError: the ticket was cancelled.
        """
        now = time.monotonic()
        with self._database.read() as session:
            tickets = active_tickets(session)
        waits = any(one.id == ticket.id for one in tickets)
        is_due = now - self._beaten_at >= HEARTBEAT_SECONDS or not waits
        if not is_due and not any(map(self._is_lost, tickets)) and self._free_device(ticket, tickets) is None:
            return self._place(ticket, tickets)
        with self._database.write() as session:
            self._require_waiting(session, ticket)
            tickets = self._without_lost(session)
            heartbeat_at = database_now(session)
            values: dict[str, object] = {"heartbeats": TicketTable.heartbeats + 1, "heartbeat_at": heartbeat_at}
            device = self._free_device(ticket, tickets)
            if device is not None:
                values |= {"state": "running", "device": device, "taken_at": utc_now()}
            session.execute(update(TicketTable).where(TicketTable.id == ticket.id).values(values))
            taken = ticket_of(session.get_one(TicketTable, ticket.id))
        self._beaten_at = now
        return self._place(ticket, tickets) if device is None else taken

    def beat(self, ticket: Ticket) -> Ticket:
        """Give a sign of life of a running ticket; return the ticket, in which a person may have asked to stop.

        Raises:
            SlotLostError: the ticket was taken for lost or ended by a person.
        """
        with self._database.write() as session:
            row = session.get(TicketTable, ticket.id)
            if row is None or row.token != ticket.token or row.state != "running":
                reason = row.reason if row else "The ticket is gone."
                raise SlotLostError(
                    f"The slot of {ticket.title} was given away: {reason} The run stops, and its last checkpoint "
                    "is kept: the same command continues."
                )
            row.heartbeats, row.heartbeat_at = row.heartbeats + 1, database_now(session)
            return ticket_of(row)

    def end(self, ticket: Ticket, outcome: Outcome, reason: str | None = None) -> None:
        """Leave the queue or free the slot; nothing happens if the ticket is no longer this process's."""
        with self._database.write() as session:
            row = session.get(TicketTable, ticket.id)
            if row is not None and row.token == ticket.token and row.state in ("waiting", "running"):
                row.state, row.reason, row.ended_at = outcome, reason, utc_now()

    def cancel(self, ticket: Ticket, who: str) -> Ticket:
        """Cancel a waiting ticket, or ask the holder of a running one to save and stop.

        A running ticket whose process is gone ends at once, and so does one of another machine that was silent for
        `silent_seconds` by the database's clock. Returns the ticket as it is now.
        """
        with self._database.write() as session:
            row = session.get_one(TicketTable, ticket.id)
            now = ticket_of(row)
            if now.is_active:
                row.cancelled_by = who
                if now.state == "waiting" or now.holder.has_ended or self._may_be_lost(session, now):
                    row.state, row.reason, row.ended_at = "cancelled", f"Cancelled by {who}.", utc_now()
            return ticket_of(row)

    def _require_waiting(self, session: Session, ticket: Ticket) -> None:
        """Put a ticket back that another machine took for lost.

        Raises:
            TicketCancelledError: the ticket was cancelled.
            AlreadyQueuedError: another run of the style has joined the queue since.
        """
        row = session.get_one(TicketTable, ticket.id)
        if row.state == "cancelled":
            raise TicketCancelledError(f"{ticket.title}: {row.reason or 'Cancelled.'} Nothing was trained.")
        if row.state == "waiting":
            return
        others = [one for one in self._without_lost(session) if one.request.subject == ticket.request.subject]
        if others:
            raise AlreadyQueuedError(others[0], None)
        row.state, row.reason, row.ended_at = "waiting", None, None
        session.flush()

    def _moved_forward(self, session: Session, other: Ticket, request: Request) -> Ticket:
        is_same_run = request.run_digest is not None and other.request.run_digest == request.run_digest
        if other.state == "waiting" and request.asked_by == "person" and is_same_run:
            session.get_one(TicketTable, other.id).asked_by = "person"
            return replace(other, request=replace(other.request, asked_by="person"))
        return other

    def _free_device(self, ticket: Ticket, tickets: Sequence[Ticket]) -> str | None:
        """Return the first free device if the ticket is the head of its machine's queue."""
        place = self._place(ticket, tickets)
        free = Counter(self._slots) - Counter(one.device or AUTO for one in place.training)
        is_free = len(place.training) < len(self._slots) and bool(free)
        return next(device for device in self._slots if free[device]) if is_free and place.number == 1 else None

    def _place(self, ticket: Ticket, tickets: Sequence[Ticket]) -> Place:
        here = [one for one in tickets if one.holder.host == ticket.holder.host]
        waiting = [one for one in here if one.state == "waiting"]
        before = waiting[: next((i for i, one in enumerate(waiting) if one.id == ticket.id), len(waiting))]
        return Place(len(before) + 1, tuple(one for one in here if one.state == "running"), tuple(before))

    def _without_lost(self, session: Session) -> list[Ticket]:
        """End the tickets of lost holders; return the remaining active ones in the order of the queue."""
        remaining = []
        for ticket in active_tickets(session):
            if self._is_lost(ticket):
                row = session.get_one(TicketTable, ticket.id)
                is_cancelled = row.cancelled_by is not None
                row.state, row.ended_at = "cancelled" if is_cancelled else "lost", utc_now()
                row.reason = _KILLED if ticket.holder.has_ended else _SILENT
            else:
                remaining.append(ticket)
        session.flush()
        return remaining

    def _is_lost(self, ticket: Ticket) -> bool:
        if ticket.holder.is_on_this_machine:
            return ticket.holder.has_ended
        look = self._looks.setdefault(ticket.id, _Look(ticket.heartbeats))
        return look.silence(ticket.heartbeats) >= self._silent_seconds

    def _may_be_lost(self, session: Session, ticket: Ticket) -> bool:
        """Return True if a ticket of another machine is worth observing: its last sign of life is old.

        Both times are the database's, so the clocks of the two machines do not matter.
        """
        if ticket.holder.is_on_this_machine:
            return False
        return (database_now(session) - ticket.heartbeat_at).total_seconds() >= self._silent_seconds


class _Look:
    """Silence of a holder on another machine, by this process's steady clock and only while this process looks."""

    def __init__(self, heartbeats: int) -> None:
        self._heartbeats, self._seconds, self._looked_at = heartbeats, 0.0, time.monotonic()

    def silence(self, heartbeats: int) -> float:
        now = time.monotonic()
        self._seconds += min(now - self._looked_at, _LONGEST_LOOK_SECONDS)
        if heartbeats != self._heartbeats:
            self._heartbeats, self._seconds = heartbeats, 0.0
        self._looked_at = now
        return self._seconds
