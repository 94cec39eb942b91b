"""Sides of the split in the database: earlier sides, look-alikes across the sides, and the recorded outcome."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import cast

from sqlalchemy import bindparam, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from sdlora.data.checks.base import Ruling
from sdlora.data.config import DataConfig
from sdlora.data.duplicates.fingerprint import VERSION
from sdlora.data.duplicates.pairs import pairs_below
from sdlora.data.recording import record_rulings, record_verdicts
from sdlora.data.split import LEAK, Member, Sides
from sdlora.data.verdicts import verdict_of
from sdlora.store.records import Split
from sdlora.store.tables.datasets import MemberTable
from sdlora.store.tables.images import DecodingTable, ImageTable

_CANDIDATES = MemberTable.removed_at.is_(None) & or_(MemberTable.verdict == "accepted", MemberTable.rejected_by == LEAK)


def candidates(session: Session, dataset_id: int) -> list[Member]:
    """Return accepted images and split leaks. A leak may fit on a side now."""
    statement = select(MemberTable.id, ImageTable.sha256, MemberTable.split)
    statement = statement.join(ImageTable, ImageTable.id == MemberTable.image_id)
    rows = session.execute(statement.where(MemberTable.dataset_id == dataset_id, _CANDIDATES))
    return [Member(row.id, row.sha256, cast("Split | None", row.split)) for row in rows]


def take_over_sides(session: Session, dataset_id: int) -> None:
    """Give an image that replaces a copy the side of the copy, because a model may have learnt from the copy.

    Of copies on both sides, those in training count.
    """
    copies = aliased(MemberTable)
    has_side = copies.copy_of_id.is_not(None) & copies.split.is_not(None)
    side = (
        select(func.max(copies.split)).where(copies.copy_of_id == MemberTable.id).scalar_subquery()
    )  # train > held_out
    replacing = MemberTable.id.in_(select(copies.copy_of_id).where(has_side, copies.dataset_id == dataset_id))
    session.execute(update(MemberTable).where(MemberTable.split.is_(None), replacing).values(split=side))


def look_alikes(session: Session, dataset_id: int, config: DataConfig) -> list[tuple[int, int]]:
    """Return pairs of ids of candidates that differ by less than `suspect_difference`."""
    statement = select(DecodingTable.fingerprint_id, MemberTable.id)
    statement = statement.join(MemberTable, MemberTable.decoding_id == DecodingTable.id)
    members_by_fingerprint: dict[int, list[int]] = {}
    for fingerprint_id, member_id in session.execute(
        statement.where(MemberTable.dataset_id == dataset_id, _CANDIDATES, DecodingTable.fingerprint_id.is_not(None))
    ):
        members_by_fingerprint.setdefault(fingerprint_id or 0, []).append(member_id)
    return [
        member_ids
        for first_id, second_id, _ in pairs_below(session, config.suspect_difference)
        if first_id in members_by_fingerprint and second_id in members_by_fingerprint
        for member_ids in product(members_by_fingerprint[first_id], members_by_fingerprint[second_id])
    ]


def record_sides(
    session: Session, dataset_id: int, members: Sequence[Member], sides: Sides, config: DataConfig
) -> None:
    """Record new sides, and the rulings and verdicts of current and earlier split leaks."""
    new_sides = [
        {"member": member.member_id, "side": sides.splits[member.member_id]}
        for member in members
        if member.split is None and member.member_id in sides.splits
    ]
    if new_sides:
        statement = update(MemberTable).where(MemberTable.id == bindparam("member")).values(split=bindparam("side"))
        session.connection().execute(statement, new_sides)
    rejected_before = select(MemberTable.id).where(
        MemberTable.dataset_id == dataset_id, MemberTable.rejected_by == LEAK
    )
    changed_ids = set(session.scalars(rejected_before)) | set(sides.leaks)
    rulings = {
        member_id: [Ruling(LEAK, VERSION, None, _leak_reason(sides.leaks.get(member_id), config))]
        for member_id in changed_ids
    }
    record_rulings(session, rulings, (LEAK,))
    record_verdicts(session, {member_id: verdict_of(member_rulings) for member_id, member_rulings in rulings.items()})


def _leak_reason(other: Member | None, config: DataConfig) -> str | None:
    if other is None:
        return None
    return (
        f"looks like image {other.sha256[:12]} on the other side of the train/held-out split; they differ by less than "
        f"suspect_difference = {config.suspect_difference:g}"
    )
