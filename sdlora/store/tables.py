"""Tables of the image database.

Once for each image, whatever number of datasets it is in:

images ──< decodings ──< scores             what depends on pixels only: (decoding, check, version) -> score
  │            └──> fingerprints ──< similar_pairs >── fingerprints
  │── takedowns                             tombstones of images that were taken down in every dataset
  └──< snapshot_images >── snapshots ──< versions             adapters trained on the snapshot
generations, images ──< ratings             by SHA-256: people's ratings of generated or collected images

Once for each dataset:

datasets ──< members >── images             an image in a dataset: verdict, reason, side of the split
   │            │──< rulings                checks that reject the member
   │            │──< overrides              people's decisions with who, when and why; win over the checks
   │            └──< captions, files
   │──< sources ──< files ──── masks        pictures that select parts of images
   └──< snapshots

champion_history                            decisions on each style's versions, and the champions

An image is identified by the SHA-256 of its bytes. Unique keys prevent concurrent collectors from adding it twice.
No decision in a dataset reads a table of another dataset. Members are ordered by id, which is the order in which they
joined their dataset. No table holds an absolute path, so the store can be moved with its folder.
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


class DatasetTable(Base):
    """Dataset: a named set of images. A deleted one stays if snapshots stand on it; its name is not used again."""

    __tablename__ = "datasets"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    made_at: Mapped[datetime] = mapped_column(default=utc_now)
    deleted_at: Mapped[datetime | None]


class SourceTable(Base):
    """Source of images of one dataset. `key` is a digest of its full address, which is not stored."""

    __tablename__ = "sources"
    __table_args__ = (Unique("dataset_id", "key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    key: Mapped[str] = mapped_column(String(64))
    name: Mapped[str]


class ImageTable(Base):
    """Image: its bytes, in whatever dataset it is."""

    __tablename__ = "images"

    id: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    byte_size: Mapped[int] = mapped_column(BigInteger)
    collected_at: Mapped[datetime] = mapped_column(default=utc_now)


class TakedownTable(Base):
    """Takedown of an image in every dataset: its bytes were removed for good, and collecting it is refused."""

    __tablename__ = "takedowns"

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    why: Mapped[str]
    who: Mapped[str]
    made_at: Mapped[datetime] = mapped_column(default=utc_now)


class DecodingTable(Base):
    """Decoding of an image, on the background of its transparent parts. Datasets with one background share it."""

    __tablename__ = "decodings"
    __table_args__ = (Unique("image_id", "background"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    background: Mapped[str]  # empty if no background shows through; such a decoding is valid for every background
    decoded_as: Mapped[str]  # version of the decoder, and the background
    format: Mapped[str | None]
    width: Mapped[int | None]
    height: Mapped[int | None]
    problem: Mapped[str | None]  # reason why the image cannot be decoded
    fingerprint_id: Mapped[int | None] = mapped_column(ForeignKey("fingerprints.id"), index=True)


class ScoreTable(Base):
    """Score of a decoding by a check. It needs a decoded image; settings turn it into a ruling."""

    __tablename__ = "scores"

    decoding_id: Mapped[int] = mapped_column(ForeignKey("decodings.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    parameters: Mapped[str] = mapped_column(String(16), primary_key=True)  # digest of a model; empty without one
    score: Mapped[float]


IS_COPY = text("copy_of_id IS NOT NULL")


class MemberTable(Base):
    """Image in a dataset. The columns from `decoding_id` on are empty until the dataset has been cleaned."""

    __tablename__ = "members"
    __table_args__ = (
        Unique("image_id", "dataset_id"),
        Index(None, "dataset_id", "verdict", "rejected_by"),
        Index(None, "dataset_id", "rules"),
        # Few images are copies, and only they are in the index.
        Index(None, "copy_of_id", sqlite_where=IS_COPY, postgresql_where=IS_COPY),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    source: Mapped[str | None]
    licence: Mapped[str | None]
    added_at: Mapped[datetime] = mapped_column(default=utc_now)
    added_from: Mapped[str | None]  # dataset that a person added it from; None: a source of this dataset has it
    removed_at: Mapped[datetime | None]  # a removed image belongs to the dataset no longer
    removed_by: Mapped[str | None]  # person; None: its source has it no longer
    decoding_id: Mapped[int | None] = mapped_column(ForeignKey("decodings.id"))  # the one that the verdict is about
    verdict: Mapped[str | None]
    rejected_by: Mapped[str | None]
    reason: Mapped[str | None]
    copy_of_id: Mapped[int | None] = mapped_column(ForeignKey("members.id"))  # the member kept for a rejected copy
    rules: Mapped[str | None] = mapped_column(String(16))  # digest of the checks behind the verdict
    split: Mapped[str | None]  # set by the first snapshot that holds the image, never changed afterwards

    image: Mapped[ImageTable] = relationship()
    decoding: Mapped[DecodingTable | None] = relationship()
    captions: Mapped[list[CaptionTable]] = relationship(order_by="CaptionTable.position")
    files: Mapped[list[FileTable]] = relationship(order_by="FileTable.path", back_populates="member")


class FileTable(Base):
    """File of a source that shows an image. The stamps identify an unchanged file and caption without reading them."""

    __tablename__ = "files"
    __table_args__ = (Unique("source_id", "path"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    source_id: Mapped[int] = mapped_column(ForeignKey("sources.id"))
    path: Mapped[str]
    member_id: Mapped[int] = mapped_column(ForeignKey("members.id"), index=True)
    byte_size: Mapped[int] = mapped_column(BigInteger)
    stamp: Mapped[str | None]  # changes with the bytes: size and time, a checksum, an ETag
    caption_stamp: Mapped[str | None]  # changes with the file's captions
    repeats: Mapped[int | None]  # times per epoch, if the source gives a number (`10_name`)
    source: Mapped[SourceTable] = relationship()
    member: Mapped[MemberTable] = relationship(back_populates="files")


class MaskTable(Base):
    """Mask of a file: a picture that selects the parts used in training. A mask with a `problem` is not used."""

    __tablename__ = "masks"

    file_id: Mapped[int] = mapped_column(ForeignKey("files.id"), primary_key=True)
    path: Mapped[str]
    sha256: Mapped[str | None] = mapped_column(String(64), index=True)  # the bytes are stored with those of the images
    byte_size: Mapped[int | None] = mapped_column(BigInteger)
    problem: Mapped[str | None]  # reason why it cannot be used


class CaptionTable(Base):
    """Caption of a member from one file of a source; a person's edit has no source and no file."""

    __tablename__ = "captions"
    __table_args__ = (
        Unique("member_id", "source_id", "file_id", "text"),
        Index(None, "text", postgresql_using="hash"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    member_id: Mapped[int] = mapped_column(ForeignKey("members.id"))
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


class RulingTable(Base):
    """Check that rejects a member under the settings of its last cleaning. Checks that it passes have no row."""

    __tablename__ = "rulings"

    member_id: Mapped[int] = mapped_column(ForeignKey("members.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    score: Mapped[float | None]
    reason: Mapped[str]


class OverrideTable(Base):
    """Decision of a person on a member. The row without `withdrawn_at` counts; the other rows are its history."""

    __tablename__ = "overrides"

    id: Mapped[int] = mapped_column(primary_key=True)
    member_id: Mapped[int] = mapped_column(ForeignKey("members.id"), index=True)
    verdict: Mapped[str]  # accepted or rejected
    why: Mapped[str]
    who: Mapped[str]
    made_at: Mapped[datetime] = mapped_column(default=utc_now)
    withdrawn_at: Mapped[datetime | None]
    withdrawn_by: Mapped[str | None]


class SnapshotTable(Base):
    """Frozen list of (image, captions, split) of a dataset, identified by the digest of its rows."""

    __tablename__ = "snapshots"
    __table_args__ = (Unique("dataset_id", "digest"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    digest: Mapped[str] = mapped_column(String(64))
    parent_id: Mapped[int | None] = mapped_column(
        ForeignKey("snapshots.id")
    )  # the newest snapshot of the dataset when this one was made
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
