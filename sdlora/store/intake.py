"""Writing what a collector found: sources, images, the files they were seen in, and their captions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from sdlora.store.records import Caption, Origin
from sdlora.store.tables import Base, CaptionTable, FileTable, ImageTable, SourceTable, utc_now

T = TypeVar("T")

CHUNK = 500
"""Rows per statement: well below SQLite's limit of 32,766 bound values."""


@dataclass(frozen=True)
class SeenFile:
    """One image as a source shows it. `mtime_ns` is None where a source has no such time."""

    path: str
    sha256: str
    byte_size: int
    mtime_ns: int | None = None
    source: str | None = None
    licence: str | None = None


def register_source(session: Session, key: str, name: str) -> int:
    """The id of the source with this key, new or known."""
    insert_or_ignore(session, SourceTable, [{"key": key, "name": name}])
    return session.scalars(select(SourceTable.id).where(SourceTable.key == key)).one()


def known_files(session: Session, source_id: int) -> dict[str, SeenFile]:
    """Every file that this source showed before, by path."""
    statement = (
        select(FileTable.path, ImageTable.sha256, FileTable.byte_size, FileTable.mtime_ns)
        .join(ImageTable, ImageTable.id == FileTable.image_id)
        .where(FileTable.source_id == source_id)
    )
    return {row.path: SeenFile(*row) for row in session.execute(statement)}


def record_files(session: Session, source_id: int, files: Sequence[SeenFile]) -> set[str]:
    """Write the images and where they were seen; returns the SHA-256 of those the database did not have."""
    shas = list(dict.fromkeys(file.sha256 for file in files))
    new = set(shas) - set(image_ids(session, shas))
    now = utc_now()
    images = {
        file.sha256: {
            "sha256": file.sha256,
            "byte_size": file.byte_size,
            "source": file.source,
            "licence": file.licence,
            "collected_at": now,
        }
        for file in reversed(files)  # of two files with the same bytes the first one speaks
        if file.sha256 in new
    }
    insert_or_ignore(session, ImageTable, [images[sha256] for sha256 in shas if sha256 in new])
    ids = image_ids(session, shas)
    rows = [
        {
            "source_id": source_id,
            "path": file.path,
            "image_id": ids[file.sha256],
            "byte_size": file.byte_size,
            "mtime_ns": file.mtime_ns,
        }
        for file in files
    ]
    insert_or_update(session, FileTable, rows, keys=("source_id", "path"))
    return new


def captions_by_image(session: Session, source_id: int) -> dict[str, tuple[Caption, ...]]:
    """What this source said of each image, by SHA-256, in its order."""
    statement = (
        select(ImageTable.sha256, CaptionTable.text, CaptionTable.origin)
        .join(ImageTable, ImageTable.id == CaptionTable.image_id)
        .where(CaptionTable.source_id == source_id)
        .order_by(CaptionTable.image_id, CaptionTable.position)
    )
    found: dict[str, list[Caption]] = {}
    for sha256, text, origin in session.execute(statement):
        found.setdefault(sha256, []).append(Caption(text, cast("Origin", origin)))
    return {sha256: tuple(captions) for sha256, captions in found.items()}


def replace_captions(session: Session, source_id: int | None, captions: Mapping[str, Sequence[Caption]]) -> None:
    """Let `captions` (by SHA-256) be all that this source, or a person (None), says of those images.

    They are decided again by the next cleaning.
    """
    ids = image_ids(session, list(captions))
    for chunk in chunks(list(captions)):
        of_images = CaptionTable.image_id.in_([ids[sha256] for sha256 in chunk])
        of_source = CaptionTable.source_id == source_id  # SQLAlchemy writes IS NULL for None
        session.execute(delete(CaptionTable).where(of_images, of_source))
        decided = ImageTable.id.in_([ids[sha256] for sha256 in chunk]) & ImageTable.rules.is_not(None)
        session.execute(update(ImageTable).where(decided).values(rules=None))
    rows = [
        {
            "image_id": ids[sha256],
            "source_id": source_id,
            "position": position,
            "text": caption.text,
            "origin": caption.origin,
        }
        for sha256, listed in captions.items()
        for position, caption in enumerate(listed)
    ]
    insert_or_ignore(session, CaptionTable, rows)


def image_ids(session: Session, shas: Sequence[str]) -> dict[str, int]:
    """The database ids of those images that are in it, by SHA-256."""
    found: dict[str, int] = {}
    for chunk in chunks(shas):
        statement = select(ImageTable.sha256, ImageTable.id).where(ImageTable.sha256.in_(chunk))
        found.update((sha256, image_id) for sha256, image_id in session.execute(statement))
    return found


def insert_or_ignore(session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows whose unique keys are free."""
    if rows:
        statement = dialect_of(session).insert(table).on_conflict_do_nothing()
        session.connection().execute(statement, list(rows))


def insert_or_update(
    session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]], keys: Sequence[str]
) -> None:
    """Insert the rows; where one with the same unique `keys` is there, it takes the new values. The last row counts."""
    if rows:
        # PostgreSQL refuses a statement that names the same key twice.
        single = {tuple(row[key] for key in keys): row for row in rows}
        statement = dialect_of(session).insert(table)
        changed = {name: statement.excluded[name] for name in rows[0] if name not in keys}
        statement = statement.on_conflict_do_update(index_elements=list(keys), set_=changed)
        session.connection().execute(statement, list(single.values()))


def chunks(items: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def dialect_of(session: Session) -> Any:
    """Both dialects spell ON CONFLICT the same way; SQLAlchemy keeps it out of the common `insert`."""
    return postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
