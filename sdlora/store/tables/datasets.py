"""Tables of datasets: members with verdicts, and the sources that they came from."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String, text
from sqlalchemy import UniqueConstraint as Unique
from sqlalchemy.orm import Mapped, mapped_column, relationship

from sdlora.store.tables.base import Base, utc_now
from sdlora.store.tables.images import DecodingTable, ImageTable


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
