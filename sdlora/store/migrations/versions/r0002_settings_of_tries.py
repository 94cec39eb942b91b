"""Settings of earlier tries, so that a corrected setting is tried.

`sdlora/store/tables/` documents the tables and columns; a test compares both.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0002"
down_revision = "r0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("tickets", "starts"):
        op.add_column(table, sa.Column("settings_digest", sa.String(length=64), nullable=True))
    for name in ("left_data_digest", "left_settings_digest"):
        op.add_column("style_records", sa.Column(name, sa.String(length=64), nullable=True))


def downgrade() -> None:
    raise NotImplementedError("An older sdlora refuses the newer schema; keep a copy of the database before an update.")
