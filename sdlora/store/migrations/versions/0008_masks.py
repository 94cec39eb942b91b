"""Masks that lie beside images, and which of them a snapshot's image was trained with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "masks",
        sa.Column("file_id", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("byte_size", sa.BigInteger(), nullable=True),
        sa.Column("problem", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["file_id"], ["files.id"], name=op.f("fk_masks_file_id")),
        sa.PrimaryKeyConstraint("file_id", name=op.f("pk_masks")),
    )
    op.create_index(op.f("ix_masks_sha256"), "masks", ["sha256"], unique=False)
    op.add_column("snapshot_images", sa.Column("mask", sa.String(length=64), nullable=True))


def downgrade() -> None:
    op.drop_column("snapshot_images", "mask")
    op.drop_index(op.f("ix_masks_sha256"), table_name="masks")
    op.drop_table("masks")
