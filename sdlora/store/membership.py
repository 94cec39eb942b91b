"""Membership by a person: images added to a dataset from another one, removed, and brought back.

No byte is copied and nothing is decoded. The next cleaning of the dataset decides its new members from recorded scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from sdlora.store.bulk import chunks, insert_or_ignore
from sdlora.store.captions import replace_captions
from sdlora.store.intake import register_source, remove_members
from sdlora.store.queries import captions_of
from sdlora.store.records import PRECEDENCE, Caption, Origin
from sdlora.store.selection import Selection
from sdlora.store.tables.base import utc_now
from sdlora.store.tables.datasets import CaptionTable, DatasetTable, MemberTable
from sdlora.store.tables.images import ImageTable, TakedownTable

_LAST_RESORTS = tuple(origin for origins in PRECEDENCE[PRECEDENCE.index(("added",)) + 1 :] for origin in origins)
"""Origins of captions that are weaker than captions from another dataset, and stay so in that dataset."""


@dataclass(frozen=True)
class Added:
    """SHA-256 of images that joined a dataset, and of images that belonged to it before."""

    new: tuple[str, ...]
    known: tuple[str, ...]


class _Selected(NamedTuple):
    member_id: int
    image_id: int
    sha256: str
    source: str | None
    licence: str | None


def add_from(
    session: Session, dataset_id: int, other_id: int, selection: Selection, *, with_captions: bool = True
) -> Added:
    """Add the selected images of another dataset, in its order. `session` holds the write lock.

    Origin and licence come along. The captions in force become captions of this dataset, which are weaker than a
    person's edit and captions of the dataset's own sources. A removed image is brought back. Purged images are left
    out.
    """
    other = session.get_one(DatasetTable, other_id).name
    selected = _select(session, other_id, selection)
    new: list[str] = []
    known: list[str] = []
    for chunk in chunks(selected):
        members = _members(session, dataset_id, chunk)
        missing = [image for image in chunk if image.image_id not in members]
        _insert(session, dataset_id, missing, other)
        returning = [member_id for member_id, is_removed in members.values() if is_removed]
        _return(session, returning)
        added_ids = {image_id: member_id for image_id, (member_id, _) in _members(session, dataset_id, chunk).items()}
        by_person = MemberTable.id.in_(added_ids.values()) & MemberTable.added_from.is_(None)
        session.execute(update(MemberTable).where(by_person).values(added_from=other))
        if with_captions:
            captions = _captions_in_force(session, [image.member_id for image in chunk])
            source_id = register_source(session, dataset_id, f"dataset {other_id}", f"dataset {other}")
            replace_captions(
                session, source_id, {added_ids[image.image_id]: captions[image.member_id] for image in chunk}
            )
        for image in chunk:
            was_member = image.image_id in members and not members[image.image_id][1]
            (known if was_member else new).append(image.sha256)
    return Added(tuple(new), tuple(known))


def bring_back(session: Session, dataset_id: int, selection: Selection) -> tuple[str, ...]:
    """Make selected removed images members again; return their SHA-256. `session` holds the write lock."""
    selected = _select(session, dataset_id, selection, removed=True)
    for chunk in chunks([image.member_id for image in selected]):
        _return(session, chunk)
    return tuple(image.sha256 for image in selected)


def remove(session: Session, dataset_id: int, selection: Selection, who: str) -> tuple[str, ...]:
    """Remove the selected images from the dataset; return their SHA-256. `session` holds the write lock.

    They stay in the database and in other datasets. They do not return when their source is collected again.
    """
    selected = _select(session, dataset_id, selection)
    for chunk in chunks([image.member_id for image in selected]):
        remove_members(session, chunk, who)
    return tuple(image.sha256 for image in selected)


def _select(session: Session, dataset_id: int, selection: Selection, *, removed: bool = False) -> list[_Selected]:
    """Read the selected images of a dataset that were not purged, in its order."""
    statement = (
        select(MemberTable.id, ImageTable.id, ImageTable.sha256, MemberTable.source, MemberTable.licence)
        .join(ImageTable, ImageTable.id == MemberTable.image_id)
        .where(MemberTable.dataset_id == dataset_id, ImageTable.id.not_in(select(TakedownTable.image_id)))
        .where(MemberTable.removed_at.is_not(None) if removed else MemberTable.removed_at.is_(None))
        .where(*selection.conditions())
        .order_by(MemberTable.id)
    )
    return [_Selected(*row) for row in session.execute(statement)]


def _members(session: Session, dataset_id: int, images: Sequence[_Selected]) -> dict[int, tuple[int, bool]]:
    """Read (member id, whether it was removed) of images in a dataset, by image id."""
    statement = select(MemberTable.image_id, MemberTable.id, MemberTable.removed_at)
    of_images = MemberTable.image_id.in_([image.image_id for image in images])
    rows = session.execute(statement.where(MemberTable.dataset_id == dataset_id, of_images))
    return {image_id: (member_id, removed_at is not None) for image_id, member_id, removed_at in rows}


def _insert(session: Session, dataset_id: int, images: Sequence[_Selected], other: str) -> None:
    now = utc_now()
    rows = [
        {
            "dataset_id": dataset_id,
            "image_id": image.image_id,
            "source": image.source,
            "licence": image.licence,
            "added_at": now,
            "added_from": other,
        }
        for image in images
    ]
    insert_or_ignore(session, MemberTable, rows)


def _return(session: Session, member_ids: Sequence[int]) -> None:
    values = {"removed_at": None, "removed_by": None, "rules": None}
    session.execute(update(MemberTable).where(MemberTable.id.in_(member_ids)).values(values))


def _captions_in_force(session: Session, member_ids: Sequence[int]) -> Mapping[int, list[Caption]]:
    """Read the captions that training uses, by member id, with their origins in another dataset."""
    last_resorts: dict[tuple[int, str], Origin] = {}
    weak = select(CaptionTable.text, CaptionTable.origin).join(MemberTable, MemberTable.id == CaptionTable.member_id)
    weak = weak.where(CaptionTable.origin.in_(_LAST_RESORTS))
    for owner_id in (MemberTable.id, MemberTable.copy_of_id):  # a kept image has captions of its rejected copies too
        for text, origin, member_id in session.execute(weak.add_columns(owner_id).where(owner_id.in_(member_ids))):
            last_resorts.setdefault((member_id, text), cast("Origin", origin))
    texts = captions_of(session, member_ids)
    return {
        member_id: [Caption(text, last_resorts.get((member_id, text), "added")) for text in texts.get(member_id, ())]
        for member_id in member_ids
    }
