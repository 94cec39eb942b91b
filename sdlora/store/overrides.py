"""Overrides: people's decisions on single images, kept with who, when and why.

An accepted or rejected member of a dataset is so until the decision is withdrawn. A takedown concerns every dataset and
cannot be withdrawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, cast

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from sdlora.store.bulk import chunks
from sdlora.store.records import Verdict
from sdlora.store.tables.base import utc_now
from sdlora.store.tables.datasets import OverrideTable
from sdlora.store.tables.images import ImageTable, TakedownTable

PERSON = "person"
"""Value of `rejected_by` for an image that a person rejected."""
PURGED: Literal["purged"] = "purged"
"""Value of `rejected_by` for an image that was taken down for good: a tombstone without bytes."""

OverrideVerdict = Literal["accepted", "rejected", "purged"]


@dataclass(frozen=True)
class Override:
    """Decision of a person on one image; the newest one that is not withdrawn counts."""

    verdict: OverrideVerdict
    why: str
    who: str
    made_at: datetime
    withdrawn_at: datetime | None = None
    withdrawn_by: str | None = None

    @property
    def reason(self) -> str:
        """Text for the reason of the image's verdict."""
        return f"{self.verdict} by {self.who} on {self.made_at:%Y-%m-%d}: {self.why}"


def add_override(session: Session, member_id: int, verdict: Verdict, why: str, who: str) -> Override:
    """Record an override of a member, which replaces an earlier one. `session` holds the write lock."""
    withdraw_override(session, member_id, who)
    row = OverrideTable(member_id=member_id, verdict=verdict, why=why, who=who)
    session.add(row)
    session.flush()
    return _override(row)


def withdraw_override(session: Session, member_id: int, who: str) -> bool:
    """Withdraw the override of a member, so that the checks decide again; return True if there was one."""
    is_active = (OverrideTable.member_id == member_id) & OverrideTable.withdrawn_at.is_(None)
    override_ids = session.scalars(select(OverrideTable.id).where(is_active)).all()
    session.execute(update(OverrideTable).where(is_active).values(withdrawn_at=utc_now(), withdrawn_by=who))
    return bool(override_ids)


def overrides_of(session: Session, member_ids: Sequence[int]) -> Mapping[int, Override]:
    """Read the overrides in force, by member id."""
    overrides: dict[int, Override] = {}
    for chunk in chunks(member_ids):
        statement = select(OverrideTable).where(
            OverrideTable.member_id.in_(chunk), OverrideTable.withdrawn_at.is_(None)
        )
        overrides.update((row.member_id, _override(row)) for row in session.scalars(statement))
    return overrides


def override_history(session: Session, member_id: int) -> tuple[Override, ...]:
    """List all overrides of a member, withdrawn ones included, oldest first."""
    statement = select(OverrideTable).where(OverrideTable.member_id == member_id).order_by(OverrideTable.id)
    return tuple(_override(row) for row in session.scalars(statement))


def add_takedown(session: Session, image_id: int, why: str, who: str) -> Override:
    """Record the takedown of an image in every dataset. `session` holds the write lock."""
    row = TakedownTable(image_id=image_id, why=why, who=who)
    session.add(row)
    session.flush()
    return _takedown(row)


def takedown_of(session: Session, image_id: int) -> Override | None:
    """Read the takedown of an image; None if the image was not taken down."""
    row = session.get(TakedownTable, image_id)
    return _takedown(row) if row is not None else None


def purged_reasons(session: Session, shas: Sequence[str]) -> dict[str, str]:
    """Read the reasons of the given images that were taken down, by SHA-256. Their bytes must not return."""
    reasons: dict[str, str] = {}
    for chunk in chunks(shas):
        reasons |= _reasons(session, _tombstones().where(ImageTable.sha256.in_(chunk)))
    return reasons


def tombstones(session: Session) -> dict[str, str]:
    """Read the reasons of all images that were taken down, by SHA-256."""
    return _reasons(session, _tombstones())


def _tombstones() -> Select[tuple[str, TakedownTable]]:
    return select(ImageTable.sha256, TakedownTable).join(ImageTable, ImageTable.id == TakedownTable.image_id)


def _reasons(session: Session, statement: Select[tuple[str, TakedownTable]]) -> dict[str, str]:
    return {sha256: _takedown(row).reason for sha256, row in session.execute(statement)}


def _takedown(row: TakedownTable) -> Override:
    return Override(PURGED, row.why, row.who, row.made_at)


def _override(row: OverrideTable) -> Override:
    verdict = cast("OverrideVerdict", row.verdict)
    return Override(verdict, row.why, row.who, row.made_at, row.withdrawn_at, row.withdrawn_by)
