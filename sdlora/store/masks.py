"""Masks: pictures that lie beside images and say which parts of them count in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Select, delete, insert, select
from sqlalchemy.orm import Session

from sdlora.store.tables import FileTable, ImageTable, MaskTable


@dataclass(frozen=True)
class Mask:
    """The mask of one image as one source shows it.

    Attributes:
        path: in the source.
        sha256: of its bytes, which lie with those of the images; None where they cannot be had.
        problem: why it cannot be used, in words.
    """

    path: str
    sha256: str | None
    byte_size: int | None
    problem: str | None = None


def replace_masks(session: Session, masks: Mapping[int, Mask | None]) -> set[int]:
    """Let these be the masks beside files, by file id (at most a chunk); returns the files of which that is news."""
    if not any(masks.values()) and not _any_masks(session):
        return set()
    rows = session.scalars(select(MaskTable).where(MaskTable.file_id.in_(masks)))
    before = {row.file_id: _mask(row) for row in rows}
    changed = {file_id: mask for file_id, mask in masks.items() if mask != before.get(file_id)}
    if changed:
        session.execute(delete(MaskTable).where(MaskTable.file_id.in_(changed)))
        new_rows = [{"file_id": file_id, **vars(mask)} for file_id, mask in changed.items() if mask]
        if new_rows:
            session.execute(insert(MaskTable), new_rows)
    return set(changed)


def masks_of(session: Session, image_ids: Sequence[int] | None = None) -> dict[int, Mask]:
    """Masks by image id, of these images (at most a chunk) or of all; of several the one beside the newest file."""
    if not _any_masks(session):
        return {}
    # By the id in `masks`, which has few rows, so that the many files are not gone through in their order.
    statement = select(FileTable.image_id, MaskTable).join(MaskTable).order_by(MaskTable.file_id)
    if image_ids is not None:
        statement = statement.where(FileTable.image_id.in_(image_ids))
    return {image_id: _mask(row) for image_id, row in session.execute(statement)}


def mask_blobs(session: Session, source_id: int, paths: Sequence[str]) -> dict[str, tuple[str, int]]:
    """SHA-256 and size of the masks beside these files of a source (at most a chunk), by the files' paths."""
    if not _any_masks(session):
        return {}
    statement = select(FileTable.path, MaskTable.sha256, MaskTable.byte_size).join(MaskTable)
    rows = session.execute(statement.where(FileTable.source_id == source_id, FileTable.path.in_(paths)))
    return {path: (sha256, byte_size) for path, sha256, byte_size in rows if sha256 and byte_size is not None}


def delete_masks(session: Session, image_id: int) -> tuple[str, ...]:
    """Remove what is recorded of an image's masks; returns the SHA-256 of bytes that no other image needs."""
    image_masks = session.scalars(_masks_with_bytes().where(FileTable.image_id == image_id)).all()
    session.execute(delete(MaskTable).where(MaskTable.file_id.in_(_files_of(image_id))))
    shared = set(session.scalars(_masks_with_bytes().where(MaskTable.sha256.in_(image_masks))))
    shared |= set(session.scalars(select(ImageTable.sha256).where(ImageTable.sha256.in_(image_masks))))
    return tuple(sorted({sha256 for sha256 in image_masks if sha256} - shared))


def _any_masks(session: Session) -> bool:
    """Most collections have none, and need not be searched for them."""
    return session.scalars(select(MaskTable.file_id).limit(1)).first() is not None


def _masks_with_bytes() -> Select[tuple[str | None]]:
    return select(MaskTable.sha256).join(FileTable).where(MaskTable.sha256.is_not(None))


def _files_of(image_id: int) -> Select[tuple[int]]:
    return select(FileTable.id).where(FileTable.image_id == image_id)


def _mask(row: MaskTable) -> Mask:
    return Mask(row.path, row.sha256, row.byte_size, row.problem)
