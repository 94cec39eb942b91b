"""Captions of members, as sources and people give them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from sdlora.store.bulk import chunks, insert_or_ignore
from sdlora.store.records import Caption
from sdlora.store.tables.datasets import CaptionTable, MemberTable


def replace_edits(session: Session, member_id: int, captions: Sequence[Caption]) -> None:
    """Replace a person's captions of a member."""
    replace_captions(session, None, {member_id: captions})


def replace_captions(session: Session, source_id: int | None, captions: Mapping[int, Sequence[Caption]]) -> None:
    """Replace the captions, given by member id, that come from a source without files or from a person (None)."""
    for chunk in chunks(list(captions)):
        from_source = CaptionTable.source_id == source_id  # SQLAlchemy writes IS NULL for None
        session.execute(delete(CaptionTable).where(CaptionTable.member_id.in_(chunk), from_source))
    rows = [
        caption_row(member_id, source_id, None, position, caption)
        for member_id, member_captions in captions.items()
        for position, caption in enumerate(member_captions)
    ]
    insert_or_ignore(session, CaptionTable, rows)
    reset_rules(session, list(captions))


def recorded_captions(session: Session, file_ids: Sequence[int]) -> dict[tuple[int, int], list[tuple[str, str]]]:
    """Read (text, origin) of captions by (member id, file id), in their order."""
    captions: dict[tuple[int, int], list[tuple[str, str]]] = defaultdict(list)
    for chunk in chunks(file_ids):
        statement = (
            select(CaptionTable.member_id, CaptionTable.file_id, CaptionTable.text, CaptionTable.origin)
            .where(CaptionTable.file_id.in_(chunk))
            .order_by(CaptionTable.position)
        )
        for member_id, file_id, text, origin in session.execute(statement):
            captions[member_id, file_id].append((text, origin))
    return captions


def reset_rules(session: Session, ids: Sequence[int]) -> None:
    """Clear `rules` of members whose captions, masks or licence changed, so that cleaning decides them again."""
    for chunk in chunks(ids):
        with_rules = MemberTable.id.in_(chunk) & MemberTable.rules.is_not(None)
        session.execute(update(MemberTable).where(with_rules).values(rules=None))


def caption_row(
    member_id: int, source_id: int | None, file_id: int | None, position: int, caption: Caption
) -> dict[str, Any]:
    return {
        "member_id": member_id,
        "source_id": source_id,
        "file_id": file_id,
        "position": position,
        "text": caption.text,
        "origin": caption.origin,
    }
