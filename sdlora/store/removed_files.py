"""Record of what retention removed: versions without files, and bytes that no row refers to any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from sdlora.store.bulk import chunks, insert_or_ignore
from sdlora.store.tables.datasets import MaskTable
from sdlora.store.tables.images import ImageTable
from sdlora.store.tables.ratings import GenerationTable, RatingTable
from sdlora.store.tables.retention import RemovedFilesTable, UnreferencedBlobTable

_TABLES_WITH_BYTES = (GenerationTable, ImageTable, MaskTable)
"""Tables whose rows promise bytes."""


@dataclass(frozen=True)
class RemovedFiles:
    """Removal of the files of a version, or its beginning."""

    removed_at: datetime
    why: str

    def __str__(self) -> str:
        return f"files removed by retention on {self.removed_at:%Y-%m-%d}"


def removed_files(session: Session, style: str) -> dict[int, RemovedFiles]:
    """Read the removals of the versions of a style, by number."""
    rows = session.scalars(select(RemovedFilesTable).where(RemovedFilesTable.style == style))
    return {row.version: RemovedFiles(row.removed_at, row.why) for row in rows}


def record_removal(session: Session, style: str, version: int, why: str) -> RemovedFiles:
    """Record that the files of a version are being removed; a repetition returns the first record."""
    insert_or_ignore(session, RemovedFilesTable, [{"style": style, "version": version, "why": why}])
    return removed_files(session, style)[version]


def forget_removal(session: Session, style: str, version: int) -> None:
    """Delete the record, because the files are there again."""
    table = RemovedFilesTable
    session.execute(delete(table).where(table.style == style, table.version == version))


def drop_drawn_images(session: Session, sha256s: Sequence[str]) -> None:
    """Delete the rows of drawn images and remember their bytes as unreferenced. Rated images stay."""
    for sha256 in sha256s:
        if session.scalar(select(RatingTable.id).where(RatingTable.sha256 == sha256).limit(1)) is None:
            session.execute(delete(GenerationTable).where(GenerationTable.sha256 == sha256))
            insert_or_ignore(session, UnreferencedBlobTable, [{"sha256": sha256}])


def unreferenced_blobs(session: Session) -> list[str]:
    """List the bytes to delete. Bytes that a row refers to again are forgotten here and not listed."""
    for table in _TABLES_WITH_BYTES:
        used = select(table.sha256).where(table.sha256.is_not(None))
        session.execute(delete(UnreferencedBlobTable).where(UnreferencedBlobTable.sha256.in_(used)))
    return list(session.scalars(select(UnreferencedBlobTable.sha256)))


def without_row(session: Session, sha256s: Sequence[str]) -> list[str]:
    """Select the bytes that no row refers to, in their order."""
    used: set[str | None] = set()
    for chunk in chunks(sha256s):
        for table in _TABLES_WITH_BYTES:
            used.update(session.scalars(select(table.sha256).where(table.sha256.in_(chunk))))
    return [sha256 for sha256 in sha256s if sha256 not in used]


def forget_blobs(session: Session, sha256s: Sequence[str]) -> None:
    """Delete the record of bytes that are gone."""
    session.execute(delete(UnreferencedBlobTable).where(UnreferencedBlobTable.sha256.in_(sha256s)))
