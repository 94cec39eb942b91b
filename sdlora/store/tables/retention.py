"""Tables of what retention removed."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String
from sqlalchemy import UniqueConstraint as Unique
from sqlalchemy.orm import Mapped, mapped_column

from sdlora.store.tables.base import Base, utc_now


class RemovedFilesTable(Base):
    """Version whose weights and pictures retention removed. The rows of version, decisions and lineage stay.

    The row is written before the first file is deleted, so that an interrupted deletion is noticed.
    """

    __tablename__ = "removed_files"
    __table_args__ = (Unique("style", "version"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    style: Mapped[str]
    version: Mapped[int]
    why: Mapped[str]
    removed_at: Mapped[datetime] = mapped_column(default=utc_now)


class UnreferencedBlobTable(Base):
    """Bytes that no row refers to since their drawn image was removed; the row is deleted after the bytes."""

    __tablename__ = "unreferenced_blobs"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
