"""The tables of the image database.

sources ──< files >── images ──< captions               files ──── masks    pictures beside them: what counts
                        │  │──< checks            the ledger: (image, check, version, parameters) -> score, verdict
                        │  │──< overrides         what people decided, with who, when and why; wins over the checks
                        │  └──> fingerprints ──< similar_pairs >── fingerprints
                        └──< snapshot_images >── snapshots ──< versions    the adapters trained on it
generations, images ──< ratings                by SHA-256: what people think of a picture, drawn or collected
champion_history                               what was decided of each style's versions, and who was champion when

An image is known by the SHA-256 of its bytes; unique keys, not hope, keep concurrent collectors from doubling one.
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
)
from sqlalchemy import UniqueConstraint as Unique
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, kept in UTC; SQLite itself forgets time zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value else None


def utc_now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """All tables; constraints are named so that a later migration can change them."""

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
    """A place that images were collected from. `key` is a digest of its full address, which is not kept."""

    __tablename__ = "sources"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str]


class ImageTable(Base):
    """One image. The columns from `format` on are empty until the image has been cleaned."""

    __tablename__ = "images"
    __table_args__ = (Index(None, "verdict", "rejected_by"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    byte_size: Mapped[int] = mapped_column(BigInteger)
    source: Mapped[str | None]
    licence: Mapped[str | None]
    collected_at: Mapped[datetime] = mapped_column(default=utc_now)
    format: Mapped[str | None]
    width: Mapped[int | None]
    height: Mapped[int | None]
    problem: Mapped[str | None]  # why it cannot be decoded, in words
    decoded_as: Mapped[str | None]  # version of the decoder, and the background if it shows through
    fingerprint_id: Mapped[int | None] = mapped_column(ForeignKey("fingerprints.id"), index=True)
    verdict: Mapped[str | None]
    rejected_by: Mapped[str | None]
    reason: Mapped[str | None]
    rules: Mapped[str | None] = mapped_column(String(16), index=True)  # digest of the checks behind the verdict
    split: Mapped[str | None]  # set by the first snapshot that holds the image, never changed afterwards

    captions: Mapped[list[CaptionTable]] = relationship(order_by="CaptionTable.position")
    files: Mapped[list[FileTable]] = relationship(order_by="FileTable.path")


class FileTable(Base):
    """Where an image was seen, and the stamps by which an unchanged file and its caption are known unread."""

    __tablename__ = "files"
    __table_args__ = (Unique("source_id", "path"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    source_id: Mapped[int] = mapped_column(ForeignKey("sources.id"))
    path: Mapped[str]
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    byte_size: Mapped[int] = mapped_column(BigInteger)
    stamp: Mapped[str | None]  # changes when the bytes do: size and time, a checksum, an ETag
    caption_stamp: Mapped[str | None]  # changes when the captions beside it do
    repeats: Mapped[int | None]  # how often an epoch shows it, where the source says so (`10_name`)
    source: Mapped[SourceTable] = relationship()


class MaskTable(Base):
    """The picture beside a file that says which parts of it count. One with a `problem` is used by nobody."""

    __tablename__ = "masks"

    file_id: Mapped[int] = mapped_column(ForeignKey("files.id"), primary_key=True)
    path: Mapped[str]
    sha256: Mapped[str | None] = mapped_column(String(64), index=True)  # its bytes lie with those of the images
    byte_size: Mapped[int | None] = mapped_column(BigInteger)
    problem: Mapped[str | None]  # why it cannot be used, in words


class CaptionTable(Base):
    """One caption of an image as one file of a source gives it; a person's edit has neither source nor file."""

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
    """What one set of pixels looks like. Images with identical pixels share a fingerprint."""

    __tablename__ = "fingerprints"
    # The index holds all that a search reads, so that it need not pass the thumbnails.
    __table_args__ = (Unique("pixels_sha256", "version"), Index(None, "version", "id", "hashes"))

    id: Mapped[int] = mapped_column(primary_key=True)
    pixels_sha256: Mapped[str] = mapped_column(String(64))
    version: Mapped[int]
    hashes: Mapped[bytes] = mapped_column(LargeBinary)  # four of 64 bits, the highest byte first
    aspect: Mapped[float]
    thumbnail: Mapped[bytes] = mapped_column(LargeBinary)


class SimilarPairTable(Base):
    """Two fingerprints that look alike, first_id < second_id. All of one version have been compared with each other."""

    __tablename__ = "similar_pairs"

    first_id: Mapped[int] = mapped_column(ForeignKey("fingerprints.id"), primary_key=True)
    second_id: Mapped[int] = mapped_column(ForeignKey("fingerprints.id"), primary_key=True, index=True)
    difference: Mapped[float] = mapped_column(index=True)


class CheckTable(Base):
    """The ledger of cleaning: a score costs a decoded image and is kept, a verdict is that score under parameters."""

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
    """A person's word on one image. The row without `withdrawn_at` counts; the others are its history."""

    __tablename__ = "overrides"

    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    verdict: Mapped[str]  # accepted, rejected, or purged: its bytes are gone for good
    why: Mapped[str]
    who: Mapped[str]
    made_at: Mapped[datetime] = mapped_column(default=utc_now)
    withdrawn_at: Mapped[datetime | None]
    withdrawn_by: Mapped[str | None]


class SnapshotTable(Base):
    """A frozen list of (image, captions, split), known by the digest of its rows."""

    __tablename__ = "snapshots"

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("snapshots.id"))  # the newest one when it was made
    made_at: Mapped[datetime] = mapped_column(default=utc_now)
    train_count: Mapped[int]
    held_out_count: Mapped[int]


class SnapshotImageTable(Base):
    """One row of a snapshot, with the captions as they were."""

    __tablename__ = "snapshot_images"

    snapshot_id: Mapped[int] = mapped_column(ForeignKey("snapshots.id"), primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True, index=True)
    split: Mapped[str]
    captions: Mapped[list[str]] = mapped_column(JSON)
    background: Mapped[str | None]  # of an image whose transparent parts do not lie on white
    mask: Mapped[str | None] = mapped_column(String(64))  # SHA-256 of the picture that says which parts count
    weight: Mapped[float | None]  # how often an epoch shows it beside the others; None: 1


class VersionTable(Base):
    """A published adapter and the snapshot it was trained on, so that images lead to versions and back."""

    __tablename__ = "versions"
    __table_args__ = (Unique("name", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    number: Mapped[int]
    adapter_digest: Mapped[str] = mapped_column(String(64))
    snapshot_id: Mapped[int] = mapped_column(ForeignKey("snapshots.id"), index=True)
    recorded_at: Mapped[datetime] = mapped_column(default=utc_now)


class ChampionHistoryTable(Base):
    """One decision on a version, or one move of a style's champion. Rows are added and never changed.

    MLflow's alias `champion` follows the newest row. Equal `from_version` and `to_version`: the champion stayed.
    """

    __tablename__ = "champion_history"
    __table_args__ = (Unique("style", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    style: Mapped[str]
    number: Mapped[int]  # counts from 1 within the style
    kind: Mapped[str]
    version: Mapped[int]  # what was decided on, by its number in the registry
    from_version: Mapped[int | None]  # the champion before; None without one
    to_version: Mapped[int | None]  # the champion afterwards
    who: Mapped[str]
    why: Mapped[str]
    decided_at: Mapped[datetime] = mapped_column(default=utc_now)
    adapter_digest: Mapped[str] = mapped_column(String(64))
    snapshot_digest: Mapped[str | None] = mapped_column(String(64))
    run_digest: Mapped[str | None] = mapped_column(String(64))
    duel_digest: Mapped[str | None] = mapped_column(String(64))  # None, like the next, where no duel was fought
    decision_digest: Mapped[str | None] = mapped_column(String(64))
    train_count: Mapped[int | None]
    metric: Mapped[str | None]  # the leading metric of its day, with the version's and the base model's value
    score: Mapped[float | None]
    base_score: Mapped[float | None]


class GenerationTable(Base):
    """An image that a model version drew. Its bytes lie with the others; it trains nothing until it is collected."""

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
    """A person's judgement of an image, drawn or collected. A row without `withdrawn_at` counts, one a person."""

    __tablename__ = "ratings"

    id: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), index=True)  # a generation need not be collected, so no image id
    rater: Mapped[str]
    stars: Mapped[int]
    why: Mapped[str | None]
    rated_at: Mapped[datetime] = mapped_column(default=utc_now)
    withdrawn_at: Mapped[datetime | None]
