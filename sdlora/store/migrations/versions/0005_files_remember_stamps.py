"""Files remember the stamps of their bytes and captions, and their repeats; captions name the file that says them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_OLD_UNIQUE = "uq_captions_image_id_source_id_text"
_NEW_UNIQUE = "uq_captions_image_id_source_id_file_id_text"


def upgrade() -> None:
    with op.batch_alter_table("files") as batch_op:
        batch_op.add_column(sa.Column("stamp", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("caption_stamp", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("repeats", sa.Integer(), nullable=True))
    op.execute("UPDATE files SET stamp = byte_size || '-' || mtime_ns WHERE mtime_ns IS NOT NULL")
    with op.batch_alter_table("files") as batch_op:
        batch_op.drop_column("mtime_ns")
    with op.batch_alter_table("captions") as batch_op:
        batch_op.add_column(sa.Column("file_id", sa.Integer(), nullable=True))
        batch_op.create_foreign_key(op.f("fk_captions_file_id"), "files", ["file_id"], ["id"])
        batch_op.drop_constraint(_OLD_UNIQUE, type_="unique")
        batch_op.create_unique_constraint(_NEW_UNIQUE, ["image_id", "source_id", "file_id", "text"])
        batch_op.create_index(batch_op.f("ix_captions_file_id"), ["file_id"], unique=False)
    op.execute(
        "UPDATE captions SET file_id = (SELECT min(files.id) FROM files WHERE files.image_id = captions.image_id "
        "AND files.source_id = captions.source_id) WHERE source_id IS NOT NULL"
    )


def downgrade() -> None:
    op.execute("DELETE FROM captions WHERE id NOT IN (SELECT min(id) FROM captions GROUP BY image_id, source_id, text)")
    with op.batch_alter_table("captions") as batch_op:
        batch_op.drop_index(batch_op.f("ix_captions_file_id"))
        batch_op.drop_constraint(_NEW_UNIQUE, type_="unique")
        batch_op.create_unique_constraint(_OLD_UNIQUE, ["image_id", "source_id", "text"])
        batch_op.drop_constraint("fk_captions_file_id", type_="foreignkey")
        batch_op.drop_column("file_id")
    with op.batch_alter_table("files") as batch_op:
        batch_op.add_column(sa.Column("mtime_ns", sa.BigInteger(), nullable=True))
        batch_op.drop_column("repeats")
        batch_op.drop_column("caption_stamp")
        batch_op.drop_column("stamp")
