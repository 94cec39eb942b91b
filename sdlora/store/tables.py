"""Tables of the image database.

sources ──< files >── images ──< captions               files ──── masks    pictures that select parts of images
                        │  │──< checks            ledger: (image, check, version, parameters) -> score, verdict
                        │  │──< overrides         people's decisions with who, when and why; win over the checks
                        │  └──> fingerprints ──< similar_pairs >── fingerprints
                        └──< snapshot_images >── snapshots ──< versions    adapters trained on the snapshot
generations, images ──< ratings                by SHA-256: people's ratings of generated or collected images
champion_history                               decisions on each style's versions, and the champions

An image is identified by the SHA-256 of its bytes. Unique keys prevent concurrent collectors from adding it twice.
No table holds an absolute path, so the store can be moved with its folder.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    TypeDecorator,
    text,
)
from sqlalchemy import UniqueConstraint as Unique
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class UtcDateTime(TypeDecorator[datetime]):
    """Timezone-aware datetime, stored in UTC, because SQLite does not store time zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value else None


def utc_now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """Base class of all tables; constraints have names, so that a later migration can change them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime}  # noqa: RUF012  # SQLAlchemy's own class attribute


class SourceTable(Base):
    """Source of images. `key` is a digest of its full address, which is not stored."""

    __tablename__ = "sources"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str]


class ImageTable(Base):
    """Image. The columns from `format` on are empty until the image has been cleaned."""

    __tablename__ = "images"
    __table_args__ = (
        Index(None, "verdict", "rejected_by"),
        # Few images are copies, and only they are in the index.
        Index(
            None,
            "copy_of_id",
            sqlite_where=text("copy_of_id IS NOT NULL"),
            postgresql_where=text("copy_of_id IS NOT NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    byte_size: Mapped[int] = mapped_column(BigInteger)
    source: Mapped[str | None]
    licence: Mapped[str | None]
    collected_at: Mapped[datetime] = mapped_column(default=utc_now)
    format: Mapped[str | None]
    width: Mapped[int | None]
    height: Mapped[int | None]
    problem: Mapped[str | None]  # reason why it cannot be decoded
    decoded_as: Mapped[str | None]  # version of the decoder, and the background of a transparent image
    fingerprint_id: Mapped[int | None] = mapped_column(ForeignKey("fingerprints.id"), index=True)
    verdict: Mapped[str | None]
    rejected_by: Mapped[str | None]
    reason: Mapped[str | None]
    copy_of_id: Mapped[int | None] = mapped_column(ForeignKey("images.id"))  # the image kept for a rejected copy
    rules: Mapped[str | None] = mapped_column(String(16), index=True)  # digest of the checks behind the verdict
    split: Mapped[str | None]  # set by the first snapshot that holds the image, never changed afterwards

    captions: Mapped[list[CaptionTable]] = relationship(order_by="CaptionTable.position")
    files: Mapped[list[FileTable]] = relationship(order_by="FileTable.path")


class FileTable(Base):
    """File of a source that shows an image. The stamps identify an unchanged file and caption without reading them."""

    __tablename__ = "files"
    __table_args__ = (Unique("source_id", "path"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    source_id: Mapped[int] = mapped_column(ForeignKey("sources.id"))
    path: Mapped[str]
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    byte_size: Mapped[int] = mapped_column(BigInteger)
    stamp: Mapped[str | None]  # changes with the bytes: size and time, a checksum, an ETag
    caption_stamp: Mapped[str | None]  # changes with the file's captions
    repeats: Mapped[int | None]  # times per epoch, if the source gives a number (`10_name`)
    source: Mapped[SourceTable] = relationship()


class MaskTable(Base):
    """Mask of a file: a picture that selects the parts used in training. A mask with a `problem` is not used."""

    __tablename__ = "masks"

    file_id: Mapped[int] = mapped_column(ForeignKey("files.id"), primary_key=True)
    path: Mapped[str]
    sha256: Mapped[str | None] = mapped_column(String(64), index=True)  # the bytes are stored with those of the images
    byte_size: Mapped[int | None] = mapped_column(BigInteger)
    problem: Mapped[str | None]  # reason why it cannot be used


class CaptionTable(Base):
    """Caption of an image from one file of a source; a person's edit has no source and no file."""

    __tablename__ = "captions"
    __table_args__ = (
        Unique("image_id", "source_id", "file_id", "text"),
        Index(None, "text", postgresql_using="hash"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    source_id: Mapped[int | None] = mapped_column(ForeignKey("sources.id"), index=True)
    file_id: Mapped[int | None] = mapped_column(ForeignKey("files.id"), index=True)
    position: Mapped[int]
    text: Mapped[str]
    origin: Mapped[str]
    source: Mapped[SourceTable | None] = relationship()


class FingerprintTable(Base):
    """Fingerprint of pixels for the near-duplicate search. Images with identical pixels share a fingerprint."""

    __tablename__ = "fingerprints"
    # The index covers all columns of a search, so that the search does not read the thumbnails.
    __table_args__ = (Unique("pixels_sha256", "version"), Index(None, "version", "id", "hashes"))

    id: Mapped[int] = mapped_column(primary_key=True)
    pixels_sha256: Mapped[str] = mapped_column(String(64))
    version: Mapped[int]
    hashes: Mapped[bytes] = mapped_column(LargeBinary)  # four hashes of 64 bits, big-endian
    aspect: Mapped[float]
    thumbnail: Mapped[bytes] = mapped_column(LargeBinary)


class SimilarPairTable(Base):
    """Pair of similar fingerprints, first_id < second_id. All fingerprints of one version have been compared."""

    __tablename__ = "similar_pairs"

    first_id: Mapped[int] = mapped_column(ForeignKey("fingerprints.id"), primary_key=True)
    second_id: Mapped[int] = mapped_column(ForeignKey("fingerprints.id"), primary_key=True, index=True)
    difference: Mapped[float] = mapped_column(index=True)


class CheckTable(Base):
    """Ledger of cleaning. A score is stored, because it needs a decoded image; parameters turn it into a verdict."""

    __tablename__ = "checks"

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    parameters: Mapped[str] = mapped_column(String(16), primary_key=True)
    score: Mapped[float | None]
    verdict: Mapped[str]
    reason: Mapped[str]
    checked_at: Mapped[datetime] = mapped_column(default=utc_now)


class OverrideTable(Base):
    """Decision of a person on an image. The row without `withdrawn_at` counts; the other rows are its history."""

    __tablename__ = "overrides"

    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    verdict: Mapped[str]  # accepted, rejected, or purged: the bytes were removed for good
    why: Mapped[str]
    who: Mapped[str]
    made_at: Mapped[datetime] = mapped_column(default=utc_now)
    withdrawn_at: Mapped[datetime | None]
    withdrawn_by: Mapped[str | None]


class SnapshotTable(Base):
    """Frozen list of (image, captions, split), identified by the digest of its rows."""

    __tablename__ = "snapshots"

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    parent_id: Mapped[int | None] = mapped_column(
        ForeignKey("snapshots.id")
    )  # the newest snapshot when this one was made
    made_at: Mapped[datetime] = mapped_column(default=utc_now)
    train_count: Mapped[int]
    held_out_count: Mapped[int]


class SnapshotImageTable(Base):
    """Row of a snapshot, with the captions of that time."""

    __tablename__ = "snapshot_images"

    snapshot_id: Mapped[int] = mapped_column(ForeignKey("snapshots.id"), primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True, index=True)
    split: Mapped[str]
    captions: Mapped[list[str]] = mapped_column(JSON)
    background: Mapped[str | None]  # background of a transparent image, if it is not white
    mask: Mapped[str | None] = mapped_column(String(64))  # SHA-256 of the mask
    weight: Mapped[float | None]  # frequency in an epoch, relative to the other images; None: 1


class VersionTable(Base):
    """Published adapter and the snapshot it was trained on; it links images to versions and back."""

    __tablename__ = "versions"
    __table_args__ = (Unique("name", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    number: Mapped[int]
    adapter_digest: Mapped[str] = mapped_column(String(64))
    snapshot_id: Mapped[int] = mapped_column(ForeignKey("snapshots.id"), index=True)
    recorded_at: Mapped[datetime] = mapped_column(default=utc_now)


class ChampionHistoryTable(Base):
    """Decision on a version, or change of a style's champion by a person. Rows are added and never changed.

    MLflow's alias `champion` is set from the newest row. The champion stayed if `from_version` equals `to_version`.
    """

    __tablename__ = "champion_history"
    __table_args__ = (Unique("style", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    style: Mapped[str]
    number: Mapped[int]  # position in the history of the style, from 1
    kind: Mapped[str]
    version: Mapped[int]  # number in the registry of the version that the decision is about
    from_version: Mapped[int | None]  # number of the previous champion; None without one
    to_version: Mapped[int | None]  # number of the new champion
    who: Mapped[str]
    why: Mapped[str]
    decided_at: Mapped[datetime] = mapped_column(default=utc_now)
    adapter_digest: Mapped[str] = mapped_column(String(64))
    snapshot_digest: Mapped[str | None] = mapped_column(String(64))
    run_digest: Mapped[str | None] = mapped_column(String(64))
    duel_digest: Mapped[str | None] = mapped_column(String(64))  # None without a duel, like decision_digest
    decision_digest: Mapped[str | None] = mapped_column(String(64))
    train_count: Mapped[int | None]
    metric: Mapped[str | None]  # name of the leading metric at the time
    score: Mapped[float | None]  # value of the metric for the version
    base_score: Mapped[float | None]  # value of the metric for the base model


class GenerationTable(Base):
    """Image generated by a model version. The bytes are stored; training uses the image only if it is collected."""

    __tablename__ = "generations"
    __table_args__ = (
        Unique("model_version", "prompt", "negative_prompt", "seed", "steps", "guidance_scale", name="uq_generations"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    model_version: Mapped[str]
    prompt: Mapped[str]
    negative_prompt: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    steps: Mapped[int]
    guidance_scale: Mapped[float]
    generated_at: Mapped[datetime] = mapped_column(default=utc_now)


class RatingTable(Base):
    """Rating of a generated or collected image by a person. Per person, the row without `withdrawn_at` counts."""

    __tablename__ = "ratings"

    id: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(
        String(64), index=True
    )  # no image id, because a generation may not be collected
    rater: Mapped[str]
    stars: Mapped[int]
    why: Mapped[str | None]
    rated_at: Mapped[datetime] = mapped_column(default=utc_now)
    withdrawn_at: Mapped[datetime | None]
