"""Alembic's entry: migrations run on the connection, and inside the transaction, that the caller holds.

To write a new revision after changing `tables.py`:
    python -m sdlora.store.migrations "what changes"
and raise `SCHEMA_REVISION` in `database.py`.
"""

from __future__ import annotations

from alembic import context

from sdlora.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite changes a column by copying the table
    user_module_prefix="",
)
with context.begin_transaction():
    context.run_migrations()
