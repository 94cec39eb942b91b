"""Ids of images and members by SHA-256."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from sdlora.store.bulk import chunks
from sdlora.store.tables.datasets import MemberTable
from sdlora.store.tables.images import ImageTable


def member_ids(session: Session, dataset_id: int, shas: Sequence[str]) -> dict[str, int]:
    """Read the ids of a dataset's members by SHA-256, removed ones included; other images are omitted."""
    ids: dict[str, int] = {}
    for chunk in chunks(shas):
        statement = (
            select(ImageTable.sha256, MemberTable.id)
            .join(ImageTable, ImageTable.id == MemberTable.image_id)
            .where(MemberTable.dataset_id == dataset_id, ImageTable.sha256.in_(chunk))
        )
        ids.update((sha256, member_id) for sha256, member_id in session.execute(statement))
    return ids


def image_ids(session: Session, shas: Sequence[str]) -> dict[str, int]:
    """Read the ids of images by SHA-256; images that are not recorded are omitted."""
    ids: dict[str, int] = {}
    for chunk in chunks(shas):
        statement = select(ImageTable.sha256, ImageTable.id).where(ImageTable.sha256.in_(chunk))
        ids.update((sha256, image_id) for sha256, image_id in session.execute(statement))
    return ids
