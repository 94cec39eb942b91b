"""Images remember how they were decoded, rows of a snapshot the background; captions are found by their text."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("images", sa.Column("decoded_as", sa.String(), nullable=True))
    op.add_column("snapshot_images", sa.Column("background", sa.String(), nullable=True))
    # A hash, because PostgreSQL's ordered index holds no text above 2,704 bytes; SQLite has one kind of index only.
    op.create_index(op.f("ix_captions_text"), "captions", ["text"], unique=False, postgresql_using="hash")


def downgrade() -> None:
    op.drop_index(op.f("ix_captions_text"), table_name="captions")
    op.drop_column("snapshot_images", "background")
    op.drop_column("images", "decoded_as")
