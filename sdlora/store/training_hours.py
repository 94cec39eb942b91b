"""Time that a style has trained on a day, from the tickets of its runs."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo

from sqlalchemy import select
from sqlalchemy.orm import Session

from sdlora.store.tables.tickets import TicketTable


def start_of_day(moment: datetime, zone: tzinfo) -> datetime:
    """Return the last midnight before a moment in a time zone."""
    return moment.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)


def trained_today(session: Session, style: str, now: datetime, zone: tzinfo) -> timedelta:
    """Sum the time since midnight in which runs of the style held a device.

    A run whose end nobody reported counts until its last sign of life.

    Args:
        now: a time with its zone.
        zone: zone of the midnight.
    """
    midnight, total = start_of_day(now, zone), timedelta()
    table = TicketTable
    statement = select(table.state, table.taken_at, table.ended_at, table.heartbeat_at).where(
        table.style == style, table.what == "retrain", table.taken_at.is_not(None)
    )
    for state, taken_at, ended_at, heartbeat_at in session.execute(statement):
        end = now if state == "running" else heartbeat_at if state == "lost" or ended_at is None else ended_at
        total += max(timedelta(), min(end, now) - max(taken_at, midnight))
    return total
