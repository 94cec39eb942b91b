"""Alembic's entry: migrations run on the connection, and inside the transaction, that the caller holds.

To write a new revision after changing `tables.py`:
    python -m sdlora.store.migrations "what changes"
and raise `SCHEMA_REVISION` in `database.py`.
"""

from __future__ import annotations

from typing import Any, Literal

from alembic import context

from sdlora.store.tables import Base, UtcDateTime


def render_item(kind: str, item: Any, _: Any) -> str | Literal[False]:
    """A migration must read the same when the code has changed: it names no type of the project."""
    return "sa.DateTime()" if kind == "type" and isinstance(item, UtcDateTime) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite changes a column by copying the table
    render_item=render_item,
)
with context.begin_transaction():
    context.run_migrations()
