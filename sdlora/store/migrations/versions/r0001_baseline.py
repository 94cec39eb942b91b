"""Schema of the first release.

`sdlora/store/tables/` documents the tables and columns; a test compares both.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "champion_history",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("style", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("answer", sa.String(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("from_version", sa.Integer(), nullable=True),
        sa.Column("to_version", sa.Integer(), nullable=True),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("decided_at", sa.DateTime(), nullable=False),
        sa.Column("adapter_digest", sa.String(length=64), nullable=False),
        sa.Column("snapshot_digest", sa.String(length=64), nullable=True),
        sa.Column("run_digest", sa.String(length=64), nullable=True),
        sa.Column("duel_digest", sa.String(length=64), nullable=True),
        sa.Column("decision_digest", sa.String(length=64), nullable=True),
        sa.Column("train_count", sa.Integer(), nullable=True),
        sa.Column("metric", sa.String(), nullable=True),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("base_score", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_champion_history"),
        sa.UniqueConstraint("style", "number", name="uq_champion_history_style_number"),
    )

    op.create_table(
        "fingerprints",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("pixels_sha256", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("hashes", sa.LargeBinary(), nullable=False),
        sa.Column("aspect", sa.Float(), nullable=False),
        sa.Column("thumbnail", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_fingerprints"),
        sa.UniqueConstraint("pixels_sha256", "version", name="uq_fingerprints_pixels_sha256_version"),
    )
    op.create_index("ix_fingerprints_version_id_hashes", "fingerprints", ["version", "id", "hashes"])

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
        sa.PrimaryKeyConstraint("id", name="pk_generations"),
        sa.UniqueConstraint(
            "model_version", "prompt", "negative_prompt", "seed", "steps", "guidance_scale", name="uq_generations"
        ),
    )
    op.create_index("ix_generations_sha256", "generations", ["sha256"])

    op.create_table(
        "ratings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("rater", sa.String(), nullable=False),
        sa.Column("stars", sa.Integer(), nullable=False),
        sa.Column("why", sa.String(), nullable=True),
        sa.Column("rated_at", sa.DateTime(), nullable=False),
        sa.Column("withdrawn_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_ratings"),
    )
    op.create_index("ix_ratings_sha256", "ratings", ["sha256"])

    op.create_table(
        "datasets",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("made_at", sa.DateTime(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_datasets"),
        sa.UniqueConstraint("name", name="uq_datasets_name"),
    )

    op.create_table(
        "snapshots",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("parent_id", sa.Integer(), nullable=True),
        sa.Column("made_at", sa.DateTime(), nullable=False),
        sa.Column("train_count", sa.Integer(), nullable=False),
        sa.Column("held_out_count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_snapshots_dataset_id"),
        sa.ForeignKeyConstraint(["parent_id"], ["snapshots.id"], name="fk_snapshots_parent_id"),
        sa.PrimaryKeyConstraint("id", name="pk_snapshots"),
        sa.UniqueConstraint("dataset_id", "digest", name="uq_snapshots_dataset_id_digest"),
    )

    op.create_table(
        "sources",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_sources_dataset_id"),
        sa.PrimaryKeyConstraint("id", name="pk_sources"),
        sa.UniqueConstraint("dataset_id", "key", name="uq_sources_dataset_id_key"),
    )

    op.create_table(
        "images",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("byte_size", sa.BigInteger(), nullable=False),
        sa.Column("collected_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_images"),
        sa.UniqueConstraint("sha256", name="uq_images_sha256"),
    )

    op.create_table(
        "takedowns",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("made_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_takedowns_image_id"),
        sa.PrimaryKeyConstraint("image_id", name="pk_takedowns"),
    )

    op.create_table(
        "decodings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("background", sa.String(), nullable=False),
        sa.Column("decoded_as", sa.String(), nullable=False),
        sa.Column("format", sa.String(), nullable=True),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("problem", sa.String(), nullable=True),
        sa.Column("fingerprint_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["fingerprint_id"], ["fingerprints.id"], name="fk_decodings_fingerprint_id"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_decodings_image_id"),
        sa.PrimaryKeyConstraint("id", name="pk_decodings"),
        sa.UniqueConstraint("image_id", "background", name="uq_decodings_image_id_background"),
    )
    op.create_index("ix_decodings_fingerprint_id", "decodings", ["fingerprint_id"])

    op.create_table(
        "scores",
        sa.Column("decoding_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("parameters", sa.String(length=16), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["decoding_id"], ["decodings.id"], name="fk_scores_decoding_id"),
        sa.PrimaryKeyConstraint("decoding_id", "name", "version", "parameters", name="pk_scores"),
    )

    op.create_table(
        "members",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(), nullable=True),
        sa.Column("licence", sa.String(), nullable=True),
        sa.Column("added_at", sa.DateTime(), nullable=False),
        sa.Column("added_from", sa.String(), nullable=True),
        sa.Column("removed_at", sa.DateTime(), nullable=True),
        sa.Column("removed_by", sa.String(), nullable=True),
        sa.Column("decoding_id", sa.Integer(), nullable=True),
        sa.Column("verdict", sa.String(), nullable=True),
        sa.Column("rejected_by", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("copy_of_id", sa.Integer(), nullable=True),
        sa.Column("rules", sa.String(length=16), nullable=True),
        sa.Column("split", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["copy_of_id"], ["members.id"], name="fk_members_copy_of_id"),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_members_dataset_id"),
        sa.ForeignKeyConstraint(["decoding_id"], ["decodings.id"], name="fk_members_decoding_id"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_members_image_id"),
        sa.PrimaryKeyConstraint("id", name="pk_members"),
        sa.UniqueConstraint("image_id", "dataset_id", name="uq_members_image_id_dataset_id"),
    )
    op.create_index(
        "ix_members_copy_of_id",
        "members",
        ["copy_of_id"],
        sqlite_where=sa.text("copy_of_id IS NOT NULL"),
        postgresql_where=sa.text("copy_of_id IS NOT NULL"),
    )
    op.create_index("ix_members_dataset_id_rules", "members", ["dataset_id", "rules"])
    op.create_index("ix_members_dataset_id_verdict_rejected_by", "members", ["dataset_id", "verdict", "rejected_by"])

    op.create_table(
        "removed_files",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("style", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("removed_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_removed_files"),
        sa.UniqueConstraint("style", "version", name="uq_removed_files_style_version"),
    )

    op.create_table(
        "unreferenced_blobs",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_unreferenced_blobs"),
    )

    op.create_table(
        "similar_pairs",
        sa.Column("first_id", sa.Integer(), nullable=False),
        sa.Column("second_id", sa.Integer(), nullable=False),
        sa.Column("difference", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["first_id"], ["fingerprints.id"], name="fk_similar_pairs_first_id"),
        sa.ForeignKeyConstraint(["second_id"], ["fingerprints.id"], name="fk_similar_pairs_second_id"),
        sa.PrimaryKeyConstraint("first_id", "second_id", name="pk_similar_pairs"),
    )
    op.create_index("ix_similar_pairs_difference", "similar_pairs", ["difference"])
    op.create_index("ix_similar_pairs_second_id", "similar_pairs", ["second_id"])

    op.create_table(
        "versions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("adapter_digest", sa.String(length=64), nullable=False),
        sa.Column("snapshot_id", sa.Integer(), nullable=True),
        sa.Column("recorded_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshots.id"], name="fk_versions_snapshot_id"),
        sa.PrimaryKeyConstraint("id", name="pk_versions"),
        sa.UniqueConstraint("name", "number", name="uq_versions_name_number"),
    )
    op.create_index("ix_versions_snapshot_id", "versions", ["snapshot_id"])

    op.create_table(
        "rulings",
        sa.Column("member_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["member_id"], ["members.id"], name="fk_rulings_member_id"),
        sa.PrimaryKeyConstraint("member_id", "name", name="pk_rulings"),
    )

    op.create_table(
        "files",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("member_id", sa.Integer(), nullable=False),
        sa.Column("byte_size", sa.BigInteger(), nullable=False),
        sa.Column("stamp", sa.String(), nullable=True),
        sa.Column("caption_stamp", sa.String(), nullable=True),
        sa.Column("repeats", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["member_id"], ["members.id"], name="fk_files_member_id"),
        sa.ForeignKeyConstraint(["source_id"], ["sources.id"], name="fk_files_source_id"),
        sa.PrimaryKeyConstraint("id", name="pk_files"),
        sa.UniqueConstraint("source_id", "path", name="uq_files_source_id_path"),
    )
    op.create_index("ix_files_member_id", "files", ["member_id"])

    op.create_table(
        "overrides",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("member_id", sa.Integer(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("made_at", sa.DateTime(), nullable=False),
        sa.Column("withdrawn_at", sa.DateTime(), nullable=True),
        sa.Column("withdrawn_by", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["member_id"], ["members.id"], name="fk_overrides_member_id"),
        sa.PrimaryKeyConstraint("id", name="pk_overrides"),
    )
    op.create_index("ix_overrides_member_id", "overrides", ["member_id"])

    op.create_table(
        "snapshot_images",
        sa.Column("snapshot_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.Column("captions", sa.JSON(), nullable=False),
        sa.Column("background", sa.String(), nullable=True),
        sa.Column("mask", sa.String(length=64), nullable=True),
        sa.Column("weight", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_snapshot_images_image_id"),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshots.id"], name="fk_snapshot_images_snapshot_id"),
        sa.PrimaryKeyConstraint("snapshot_id", "image_id", name="pk_snapshot_images"),
    )
    op.create_index("ix_snapshot_images_image_id", "snapshot_images", ["image_id"])

    op.create_table(
        "captions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("member_id", sa.Integer(), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=True),
        sa.Column("file_id", sa.Integer(), nullable=True),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["file_id"], ["files.id"], name="fk_captions_file_id"),
        sa.ForeignKeyConstraint(["member_id"], ["members.id"], name="fk_captions_member_id"),
        sa.ForeignKeyConstraint(["source_id"], ["sources.id"], name="fk_captions_source_id"),
        sa.PrimaryKeyConstraint("id", name="pk_captions"),
        sa.UniqueConstraint(
            "member_id", "source_id", "file_id", "text", name="uq_captions_member_id_source_id_file_id_text"
        ),
    )
    op.create_index("ix_captions_file_id", "captions", ["file_id"])
    op.create_index("ix_captions_source_id", "captions", ["source_id"])
    op.create_index("ix_captions_text", "captions", ["text"], postgresql_using="hash")

    op.create_table(
        "masks",
        sa.Column("file_id", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("byte_size", sa.BigInteger(), nullable=True),
        sa.Column("problem", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["file_id"], ["files.id"], name="fk_masks_file_id"),
        sa.PrimaryKeyConstraint("file_id", name="pk_masks"),
    )
    op.create_index("ix_masks_sha256", "masks", ["sha256"])

    op.create_table(
        "tickets",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("style", sa.String(), nullable=False),
        sa.Column("dataset", sa.String(), nullable=True),
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("asked_by", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("run_digest", sa.String(length=64), nullable=True),
        sa.Column("flow_run_id", sa.String(length=36), nullable=True),
        sa.Column("machine", sa.String(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("process_start", sa.String(), nullable=False),
        sa.Column("token", sa.String(length=32), nullable=False),
        sa.Column("heartbeats", sa.Integer(), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(), nullable=False),
        sa.Column("device", sa.String(), nullable=True),
        sa.Column("cancelled_by", sa.String(), nullable=True),
        sa.Column("asked_at", sa.DateTime(), nullable=False),
        sa.Column("taken_at", sa.DateTime(), nullable=True),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_tickets"),
    )
    op.create_index("ix_tickets_state", "tickets", ["state"])
    op.create_index("ix_tickets_style_what", "tickets", ["style", "what"])

    op.create_table(
        "style_records",
        sa.Column("style", sa.String(), nullable=False),
        sa.Column("precision", sa.String(), nullable=True),
        sa.Column("data_digest", sa.String(length=64), nullable=True),
        sa.Column("snapshot_digest", sa.String(length=64), nullable=True),
        sa.Column("dealt_with_at", sa.DateTime(), nullable=True),
        sa.Column("lesson_digest", sa.String(length=64), nullable=True),
        sa.Column("run_digest", sa.String(length=64), nullable=True),
        sa.Column("trainer", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("style", name="pk_style_records"),
    )

    op.create_table(
        "starts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("style", sa.String(), nullable=False),
        sa.Column("data_digest", sa.String(length=64), nullable=False),
        sa.Column("new_images", sa.Integer(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("flow_run_id", sa.String(length=36), nullable=True),
        sa.Column("asked_at", sa.DateTime(), nullable=False),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_starts"),
        sa.UniqueConstraint("key", name="uq_starts_key"),
    )
    op.create_index("ix_starts_style", "starts", ["style"])


def downgrade() -> None:
    raise NotImplementedError("Nothing came before the first release.")
