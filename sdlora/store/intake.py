"""Intake of collected files: writes sources, images, files, captions and masks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from sdlora.store.bulk import execute_many
from sdlora.store.masks import Mask, replace_masks
from sdlora.store.records import Caption
from sdlora.store.tables import Base, CaptionTable, FileTable, ImageTable, SourceTable, utc_now

T = TypeVar("T")

ROWS_PER_STATEMENT = 500
"""Rows per statement; SQLite's limit is 32,766 bound values."""


@dataclass(frozen=True)
class SeenFile:
    """File of a source that shows an image.

    Attributes:
        stamp: changes with the bytes; None if the source has no stamps.
        caption_stamp: changes with the source's captions of the image.
        repeats: times per epoch, if the source gives a number.
        captions: captions from the file; None keeps the recorded captions.
        mask: picture that selects the parts of the image used in training.
    """

    path: str
    sha256: str
    byte_size: int
    stamp: str | None = None
    caption_stamp: str | None = None
    repeats: int | None = None
    source: str | None = None
    licence: str | None = None
    captions: tuple[Caption, ...] | None = None
    mask: Mask | None = None


@dataclass(frozen=True)
class RecordedChanges:
    """SHA-256 of images that were added, and of recorded images with another caption, licence or mask."""

    new: frozenset[str] = frozenset()
    recaptioned: frozenset[str] = field(default=frozenset())


def register_source(session: Session, key: str, name: str) -> int:
    """Return the id of the source with this key; insert the source if it is new."""
    insert_or_ignore(session, SourceTable, [{"key": key, "name": name}])
    return session.scalars(select(SourceTable.id).where(SourceTable.key == key)).one()


def find_source(session: Session, key: str) -> int | None:
    """Return the id of the source with this key; None if the source is not recorded."""
    return session.scalars(select(SourceTable.id).where(SourceTable.key == key)).one_or_none()


def recorded_files(session: Session, source_id: int, paths: Sequence[str]) -> dict[str, SeenFile]:
    """Read the recorded files of a source, by path; paths that are not recorded are omitted."""
    files: dict[str, SeenFile] = {}
    for chunk in chunks(paths):
        statement = (
            select(
                FileTable.path,
                ImageTable.sha256,
                FileTable.byte_size,
                FileTable.stamp,
                FileTable.caption_stamp,
                FileTable.repeats,
            )
            .join(ImageTable, ImageTable.id == FileTable.image_id)
            .where(FileTable.source_id == source_id, FileTable.path.in_(chunk))
        )
        files.update((row[0], SeenFile(*row)) for row in session.execute(statement))
    return files


def record_files(session: Session, source_id: int, files: Sequence[SeenFile]) -> RecordedChanges:
    """Write images, files, captions, masks and licences, within the caller's transaction."""
    shas = list(dict.fromkeys(file.sha256 for file in files))
    new = frozenset(shas) - image_ids(session, shas).keys()
    now = utc_now()
    images = {
        file.sha256: {
            "sha256": file.sha256,
            "byte_size": file.byte_size,
            "source": file.source,
            "licence": file.licence,
            "collected_at": now,
        }
        for file in reversed(files)  # of two files with the same bytes, the first one counts
        if file.sha256 in new
    }
    insert_or_ignore(session, ImageTable, [images[sha256] for sha256 in shas if sha256 in new])
    ids = image_ids(session, shas)
    licence_updates = _licence_updates(
        session, source_id, [file for file in files if file.licence and file.sha256 not in new]
    )
    rows = [
        {
            "source_id": source_id,
            "path": file.path,
            "image_id": ids[file.sha256],
            "byte_size": file.byte_size,
            "stamp": file.stamp,
            "caption_stamp": file.caption_stamp,
            "repeats": file.repeats,
        }
        for file in files
    ]
    insert_or_update(session, FileTable, rows, keys=("source_id", "path"))
    file_ids = _file_ids(session, source_id, [file.path for file in files])
    captioned = {file_ids[file.path]: file for file in files if file.captions is not None}
    changed = _replace_file_captions(session, source_id, captioned, ids)
    changed |= _replace_masks(session, files, file_ids)
    _update_licences(session, licence_updates)
    changed |= {file.sha256 for file in licence_updates}
    _reset_rules(session, [ids[sha256] for sha256 in changed - new])
    return RecordedChanges(new, frozenset(changed - new))


def replace_edits(session: Session, captions: Mapping[str, Sequence[Caption]]) -> None:
    """Replace a person's captions of the images, given by SHA-256."""
    replace_captions(session, None, captions)


def replace_captions(session: Session, source_id: int | None, captions: Mapping[str, Sequence[Caption]]) -> None:
    """Replace the captions, given by SHA-256, that come from a source without files or from a person (None)."""
    ids = image_ids(session, list(captions))
    for chunk in chunks(list(ids.values())):
        from_source = CaptionTable.source_id == source_id  # SQLAlchemy writes IS NULL for None
        session.execute(delete(CaptionTable).where(CaptionTable.image_id.in_(chunk), from_source))
    rows = [
        _caption_row(ids[sha256], source_id, None, position, caption)
        for sha256, image_captions in captions.items()
        for position, caption in enumerate(image_captions)
    ]
    insert_or_ignore(session, CaptionTable, rows)
    _reset_rules(session, list(ids.values()))


def _replace_masks(session: Session, files: Sequence[SeenFile], file_ids: Mapping[str, int]) -> set[str]:
    """Replace the masks of the files; return the SHA-256 of images with another mask than before."""
    by_id = {file_ids[file.path]: file for file in files}
    changed = set()
    for chunk in chunks(list(by_id)):
        changed |= replace_masks(session, {file_id: by_id[file_id].mask for file_id in chunk})
    return {by_id[file_id].sha256 for file_id in changed}


def _replace_file_captions(
    session: Session, source_id: int, files: Mapping[int, SeenFile], ids: Mapping[str, int]
) -> set[str]:
    """Replace the captions of the files, given by file id; return the SHA-256 of images with changed captions."""
    recorded = _recorded_captions(session, list(files))
    changed = {}
    for file_id, file in files.items():
        before = recorded.get((ids[file.sha256], file_id), [])
        if before != [(caption.text, caption.origin) for caption in file.captions or ()]:
            changed[file_id] = file
    for chunk in chunks(list(changed)):
        # Delete captions of the image that the file shows now. An image that it showed before keeps its captions.
        of_images = CaptionTable.image_id.in_([ids[changed[file_id].sha256] for file_id in chunk])
        session.execute(delete(CaptionTable).where(of_images, CaptionTable.file_id.in_(chunk)))
    rows = [
        _caption_row(ids[file.sha256], source_id, file_id, position, caption)
        for file_id, file in changed.items()
        for position, caption in enumerate(file.captions or ())
    ]
    insert_or_ignore(session, CaptionTable, rows)
    return {file.sha256 for file in changed.values()}


def _file_ids(session: Session, source_id: int, paths: Sequence[str]) -> dict[str, int]:
    ids: dict[str, int] = {}
    for chunk in chunks(paths):
        statement = select(FileTable.path, FileTable.id).where(
            FileTable.source_id == source_id, FileTable.path.in_(chunk)
        )
        ids.update((path, file_id) for path, file_id in session.execute(statement))
    return ids


def _recorded_captions(session: Session, file_ids: Sequence[int]) -> dict[tuple[int, int], list[tuple[str, str]]]:
    """Read (text, origin) of captions by (image id, file id), in their order."""
    captions: dict[tuple[int, int], list[tuple[str, str]]] = defaultdict(list)
    for chunk in chunks(file_ids):
        statement = (
            select(CaptionTable.image_id, CaptionTable.file_id, CaptionTable.text, CaptionTable.origin)
            .where(CaptionTable.file_id.in_(chunk))
            .order_by(CaptionTable.position)
        )
        for image_id, file_id, text, origin in session.execute(statement):
            captions[image_id, file_id].append((text, origin))
    return captions


def _licence_updates(session: Session, source_id: int, files: Sequence[SeenFile]) -> list[SeenFile]:
    """Select files that change a licence: none is recorded, or the file was recorded for the same image before."""
    recorded: dict[str, str | None] = {}
    for chunk in chunks([file.sha256 for file in files]):
        statement = select(ImageTable.sha256, ImageTable.licence).where(ImageTable.sha256.in_(chunk))
        recorded.update((sha256, licence) for sha256, licence in session.execute(statement))
    differing = [file for file in files if file.licence != recorded[file.sha256]]
    previous = recorded_files(session, source_id, [file.path for file in differing])
    return [
        file
        for file in differing
        if recorded[file.sha256] is None or (file.path in previous and previous[file.path].sha256 == file.sha256)
    ]


def _update_licences(session: Session, files: Sequence[SeenFile]) -> None:
    for file in files:
        values = {"licence": file.licence} | ({"source": file.source} if file.source else {})
        session.execute(update(ImageTable).where(ImageTable.sha256 == file.sha256).values(values))


def _reset_rules(session: Session, image_ids: Sequence[int]) -> None:
    """Clear `rules` of images whose captions, masks or licence changed, so that cleaning decides them again."""
    for chunk in chunks(image_ids):
        with_rules = ImageTable.id.in_(chunk) & ImageTable.rules.is_not(None)
        session.execute(update(ImageTable).where(with_rules).values(rules=None))


def _caption_row(
    image_id: int, source_id: int | None, file_id: int | None, position: int, caption: Caption
) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "source_id": source_id,
        "file_id": file_id,
        "position": position,
        "text": caption.text,
        "origin": caption.origin,
    }


def image_ids(session: Session, shas: Sequence[str]) -> dict[str, int]:
    """Read the ids of images by SHA-256; images that are not recorded are omitted."""
    ids: dict[str, int] = {}
    for chunk in chunks(shas):
        statement = select(ImageTable.sha256, ImageTable.id).where(ImageTable.sha256.in_(chunk))
        ids.update((sha256, image_id) for sha256, image_id in session.execute(statement))
    return ids


def insert_or_ignore(session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, and skip rows whose unique key exists."""
    execute_many(session, dialect_of(session).insert(table.__table__).on_conflict_do_nothing(), rows)


def insert_or_update(
    session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]], keys: Sequence[str]
) -> None:
    """Insert rows, and update rows whose unique `keys` exist. Of rows with the same keys the last one counts."""
    if rows:
        # PostgreSQL refuses a statement that names the same key twice.
        unique_rows = {tuple(row[key] for key in keys): row for row in rows}
        statement = dialect_of(session).insert(table.__table__)
        new_values = {name: statement.excluded[name] for name in rows[0] if name not in keys}
        statement = statement.on_conflict_do_update(index_elements=list(keys), set_=new_values)
        execute_many(session, statement, list(unique_rows.values()))


def chunks(items: Sequence[T], size: int = ROWS_PER_STATEMENT) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def dialect_of(session: Session) -> Any:
    """Return the dialect's module, because SQLAlchemy's common `insert` lacks ON CONFLICT."""
    return postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
