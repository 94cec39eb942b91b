"""Clock that all machines of a database share."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from sdlora.store.tables.base import utc_now


def database_now(session: Session) -> datetime:
    """Return the time of the database server; of this machine for SQLite, whose file belongs to one machine."""
    if session.get_bind().dialect.name == "sqlite":
        return utc_now()
    now: datetime = session.execute(select(func.clock_timestamp())).scalar_one()  # now() is the transaction's start
    return now.astimezone(UTC)
