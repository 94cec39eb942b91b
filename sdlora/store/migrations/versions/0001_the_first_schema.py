"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "fingerprints",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("pixels_sha256", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("hash", sa.BigInteger(), nullable=False),
        sa.Column("aspect", sa.Float(), nullable=False),
        sa.Column("thumbnail", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fingerprints")),
        sa.UniqueConstraint("pixels_sha256", "version", name=op.f("uq_fingerprints_pixels_sha256_version")),
    )
    op.create_table(
        "generations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("model_version", sa.String(), nullable=False),
        sa.Column("prompt", sa.String(), nullable=False),
        sa.Column("negative_prompt", sa.String(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("guidance_scale", sa.Float(), nullable=False),
        sa.Column("generated_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generations")),
        sa.UniqueConstraint(
            "model_version", "prompt", "negative_prompt", "seed", "steps", "guidance_scale", name="uq_generations"
        ),
    )
    with op.batch_alter_table("generations", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_generations_sha256"), ["sha256"], unique=False)

    op.create_table(
        "snapshots",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("parent_id", sa.Integer(), nullable=True),
        sa.Column("made_at", sa.DateTime(), nullable=False),
        sa.Column("train_count", sa.Integer(), nullable=False),
        sa.Column("held_out_count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["parent_id"], ["snapshots.id"], name=op.f("fk_snapshots_parent_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_snapshots")),
        sa.UniqueConstraint("digest", name=op.f("uq_snapshots_digest")),
    )
    op.create_table(
        "sources",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sources")),
        sa.UniqueConstraint("key", name=op.f("uq_sources_key")),
    )
    op.create_table(
        "images",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("byte_size", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.String(), nullable=True),
        sa.Column("licence", sa.String(), nullable=True),
        sa.Column("collected_at", sa.DateTime(), nullable=False),
        sa.Column("format", sa.String(), nullable=True),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("problem", sa.String(), nullable=True),
        sa.Column("fingerprint_id", sa.Integer(), nullable=True),
        sa.Column("verdict", sa.String(), nullable=True),
        sa.Column("rejected_by", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("rules", sa.String(length=16), nullable=True),
        sa.Column("split", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["fingerprint_id"], ["fingerprints.id"], name=op.f("fk_images_fingerprint_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_images")),
        sa.UniqueConstraint("sha256", name=op.f("uq_images_sha256")),
    )
    with op.batch_alter_table("images", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_images_fingerprint_id"), ["fingerprint_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_images_rules"), ["rules"], unique=False)
        batch_op.create_index(batch_op.f("ix_images_verdict_rejected_by"), ["verdict", "rejected_by"], unique=False)

    op.create_table(
        "ratings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("generation_id", sa.Integer(), nullable=False),
        sa.Column("rater", sa.String(), nullable=False),
        sa.Column("stars", sa.Integer(), nullable=False),
        sa.Column("rated_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["generation_id"], ["generations.id"], name=op.f("fk_ratings_generation_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ratings")),
    )
    with op.batch_alter_table("ratings", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_ratings_generation_id"), ["generation_id"], unique=False)

    op.create_table(
        "similar_pairs",
        sa.Column("first_id", sa.Integer(), nullable=False),
        sa.Column("second_id", sa.Integer(), nullable=False),
        sa.Column("difference", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["first_id"], ["fingerprints.id"], name=op.f("fk_similar_pairs_first_id")),
        sa.ForeignKeyConstraint(["second_id"], ["fingerprints.id"], name=op.f("fk_similar_pairs_second_id")),
        sa.PrimaryKeyConstraint("first_id", "second_id", name=op.f("pk_similar_pairs")),
    )
    with op.batch_alter_table("similar_pairs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_similar_pairs_difference"), ["difference"], unique=False)
        batch_op.create_index(batch_op.f("ix_similar_pairs_second_id"), ["second_id"], unique=False)

    op.create_table(
        "captions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=True),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_captions_image_id")),
        sa.ForeignKeyConstraint(["source_id"], ["sources.id"], name=op.f("fk_captions_source_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_captions")),
        sa.UniqueConstraint("image_id", "source_id", "text", name=op.f("uq_captions_image_id_source_id_text")),
    )
    with op.batch_alter_table("captions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_captions_source_id"), ["source_id"], unique=False)

    op.create_table(
        "checks",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("parameters", sa.String(length=16), nullable=False),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("checked_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_checks_image_id")),
        sa.PrimaryKeyConstraint("image_id", "name", "version", "parameters", name=op.f("pk_checks")),
    )
    op.create_table(
        "files",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("byte_size", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_files_image_id")),
        sa.ForeignKeyConstraint(["source_id"], ["sources.id"], name=op.f("fk_files_source_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_files")),
        sa.UniqueConstraint("source_id", "path", name=op.f("uq_files_source_id_path")),
    )
    with op.batch_alter_table("files", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_files_image_id"), ["image_id"], unique=False)

    op.create_table(
        "snapshot_images",
        sa.Column("snapshot_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.Column("captions", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_snapshot_images_image_id")),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshots.id"], name=op.f("fk_snapshot_images_snapshot_id")),
        sa.PrimaryKeyConstraint("snapshot_id", "image_id", name=op.f("pk_snapshot_images")),
    )
    with op.batch_alter_table("snapshot_images", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_snapshot_images_image_id"), ["image_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("snapshot_images", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_snapshot_images_image_id"))

    op.drop_table("snapshot_images")
    with op.batch_alter_table("files", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_files_image_id"))

    op.drop_table("files")
    op.drop_table("checks")
    with op.batch_alter_table("captions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_captions_source_id"))

    op.drop_table("captions")
    with op.batch_alter_table("similar_pairs", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_similar_pairs_second_id"))
        batch_op.drop_index(batch_op.f("ix_similar_pairs_difference"))

    op.drop_table("similar_pairs")
    with op.batch_alter_table("ratings", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_ratings_generation_id"))

    op.drop_table("ratings")
    with op.batch_alter_table("images", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_images_verdict_rejected_by"))
        batch_op.drop_index(batch_op.f("ix_images_rules"))
        batch_op.drop_index(batch_op.f("ix_images_fingerprint_id"))

    op.drop_table("images")
    op.drop_table("sources")
    op.drop_table("snapshots")
    with op.batch_alter_table("generations", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_generations_sha256"))

    op.drop_table("generations")
    op.drop_table("fingerprints")
