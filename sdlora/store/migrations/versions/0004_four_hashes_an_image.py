"""Fingerprints have four hashes, indexed for the search. Older ones are of no use to it and are made anew."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _forget_fingerprints()
    with op.batch_alter_table("fingerprints", schema=None) as batch_op:
        batch_op.drop_column("hash")
        batch_op.add_column(sa.Column("hashes", sa.LargeBinary(), nullable=False))
        batch_op.create_index(
            batch_op.f("ix_fingerprints_version_id_hashes"), ["version", "id", "hashes"], unique=False
        )


def downgrade() -> None:
    _forget_fingerprints()
    with op.batch_alter_table("fingerprints", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_fingerprints_version_id_hashes"))
        batch_op.drop_column("hashes")
        batch_op.add_column(sa.Column("hash", sa.BigInteger(), nullable=False))


def _forget_fingerprints() -> None:
    op.execute("UPDATE images SET fingerprint_id = NULL")
    op.execute("DELETE FROM similar_pairs")
    op.execute("DELETE FROM fingerprints")
