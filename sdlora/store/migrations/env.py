"""Alembic environment: migrations run on the caller's connection, inside the caller's transaction.

To write a new revision after a change of `sdlora/store/tables/`:
    python -m sdlora.store.migrations "what changes"
Then update `SCHEMA_REVISION` in `database.py`.
"""

from __future__ import annotations

from typing import Any, Literal

from alembic import context

from sdlora.store.tables.base import Base, UtcDateTime


def render_item(kind: str, item: Any, _: Any) -> str | Literal[False]:
    """Render the project's types as SQLAlchemy's, so that a migration does not depend on later code."""
    return "sa.DateTime()" if kind == "type" and isinstance(item, UtcDateTime) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite changes a column by copying the table
    render_item=render_item,
)
with context.begin_transaction():
    context.run_migrations()
