"""Masks: pictures that select the parts of images used in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, delete, insert, select
from sqlalchemy.orm import Session

from sdlora.store.tables.datasets import FileTable, MaskTable, MemberTable
from sdlora.store.tables.images import ImageTable
from sdlora.store.tables.ratings import GenerationTable


@dataclass(frozen=True)
class Mask:
    """Mask of a file.

    Attributes:
        path: path in the source.
        sha256: SHA-256 of the bytes, which are stored with those of the images; None if they cannot be read.
        problem: reason why the mask cannot be used.
    """

    path: str
    sha256: str | None
    byte_size: int | None
    problem: str | None = None


def replace_masks(session: Session, masks: Mapping[int, Mask | None]) -> set[int]:
    """Replace masks, given by file id (at most a chunk); return the ids of files with another mask than before."""
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


def masks_of(session: Session, member_ids: Sequence[int]) -> dict[int, Mask]:
    """Read masks by member id, of at most a chunk of members; of several masks the newest file's counts."""
    return _masks(session, FileTable.member_id.in_(member_ids))


def masks_in(session: Session, dataset_id: int) -> dict[int, Mask]:
    """Read all masks of a dataset by member id; of several masks the newest file's counts."""
    of_dataset = select(MemberTable.id).where(MemberTable.dataset_id == dataset_id)
    return _masks(session, FileTable.member_id.in_(of_dataset))


def _masks(session: Session, condition: ColumnElement[bool]) -> dict[int, Mask]:
    if not _any_masks(session):
        return {}
    # Ordered by the id in `masks`, which has few rows: the database then does not scan `files`, which has many.
    statement = select(FileTable.member_id, MaskTable).join(MaskTable).where(condition).order_by(MaskTable.file_id)
    return {member_id: _mask(row) for member_id, row in session.execute(statement)}


def mask_blobs(session: Session, source_id: int, paths: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Read (SHA-256, size) of the masks of a source's files (at most a chunk), by path of the file."""
    if not _any_masks(session):
        return {}
    statement = select(FileTable.path, MaskTable.sha256, MaskTable.byte_size).join(MaskTable)
    rows = session.execute(statement.where(FileTable.source_id == source_id, FileTable.path.in_(paths)))
    return {path: (sha256, byte_size) for path, sha256, byte_size in rows if sha256 and byte_size is not None}


def delete_masks(session: Session, image_id: int) -> tuple[str, ...]:
    """Delete an image's masks in every dataset; return the SHA-256 of bytes that no other image uses."""
    image_masks = session.scalars(_masks_with_bytes().where(FileTable.id.in_(_files_of(image_id)))).all()
    session.execute(delete(MaskTable).where(MaskTable.file_id.in_(_files_of(image_id))))
    shared = set(session.scalars(_masks_with_bytes().where(MaskTable.sha256.in_(image_masks))))
    for table in (ImageTable, GenerationTable):
        shared |= set(session.scalars(select(table.sha256).where(table.sha256.in_(image_masks))))
    return tuple(sorted({sha256 for sha256 in image_masks if sha256} - shared))


def _any_masks(session: Session) -> bool:
    """Return True if the store has masks, so that a store without masks skips the joins."""
    return session.scalars(select(MaskTable.file_id).limit(1)).first() is not None


def _masks_with_bytes() -> Select[tuple[str | None]]:
    return select(MaskTable.sha256).join(FileTable).where(MaskTable.sha256.is_not(None))


def _files_of(image_id: int) -> Select[tuple[int]]:
    return select(FileTable.id).join(MemberTable).where(MemberTable.image_id == image_id)


def _mask(row: MaskTable) -> Mask:
    return Mask(row.path, row.sha256, row.byte_size, row.problem)


def usable_masks(session: Session, dataset_id: int) -> dict[int, str]:
    """Read the SHA-256 of the masks that can be used, by member id."""
    masks = masks_in(session, dataset_id)
    return {member_id: mask.sha256 for member_id, mask in masks.items() if mask.sha256 and mask.problem is None}
