"""Ratings are of any image by its bytes, with the reason and their history; rows of a snapshot have a weight."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("snapshot_images", sa.Column("weight", sa.Float(), nullable=True))
    with op.batch_alter_table("ratings") as batch_op:
        batch_op.add_column(sa.Column("sha256", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("why", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("withdrawn_at", sa.DateTime(), nullable=True))
    op.execute(
        "UPDATE ratings SET sha256 = (SELECT generations.sha256 FROM generations "
        "WHERE generations.id = ratings.generation_id)"
    )
    # A person rated every generation of the same bytes at once; one word of them is enough now.
    op.execute("DELETE FROM ratings WHERE id NOT IN (SELECT max(id) FROM ratings GROUP BY sha256, rater)")
    with op.batch_alter_table("ratings") as batch_op:
        batch_op.alter_column("sha256", existing_type=sa.String(length=64), nullable=False)
        batch_op.drop_index(batch_op.f("ix_ratings_generation_id"))
        batch_op.drop_constraint(batch_op.f("fk_ratings_generation_id"), type_="foreignkey")
        batch_op.drop_column("generation_id")
        batch_op.create_index(batch_op.f("ix_ratings_sha256"), ["sha256"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("ratings") as batch_op:
        batch_op.add_column(sa.Column("generation_id", sa.Integer(), nullable=True))
    op.execute(
        "UPDATE ratings SET generation_id = (SELECT min(generations.id) FROM generations "
        "WHERE generations.sha256 = ratings.sha256)"
    )
    op.execute("DELETE FROM ratings WHERE generation_id IS NULL OR withdrawn_at IS NOT NULL")
    with op.batch_alter_table("ratings") as batch_op:
        batch_op.alter_column("generation_id", existing_type=sa.Integer(), nullable=False)
        batch_op.drop_index(batch_op.f("ix_ratings_sha256"))
        batch_op.drop_column("withdrawn_at")
        batch_op.drop_column("why")
        batch_op.drop_column("sha256")
        batch_op.create_foreign_key(batch_op.f("fk_ratings_generation_id"), "generations", ["generation_id"], ["id"])
        batch_op.create_index(batch_op.f("ix_ratings_generation_id"), ["generation_id"], unique=False)
    op.drop_column("snapshot_images", "weight")
