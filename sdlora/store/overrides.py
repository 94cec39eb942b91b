"""Overrides: people's decisions on single images, kept with who, when and why, in force until withdrawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, cast

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from sdlora.store.intake import chunks
from sdlora.store.tables import ImageTable, OverrideTable, utc_now

PERSON = "person"
"""Value of `rejected_by` for an image that a person rejected."""
PURGED = "purged"
"""Value of `rejected_by` for an image that was taken down for good: a tombstone without bytes."""

OverrideVerdict = Literal["accepted", "rejected", "purged"]


@dataclass(frozen=True)
class Override:
    """Decision of a person on one image; the newest override that is not withdrawn counts."""

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


def add_override(session: Session, image_id: int, verdict: OverrideVerdict, why: str, who: str) -> Override:
    """Record an override, which replaces an earlier one. `session` holds the write lock."""
    withdraw_override(session, image_id, who)
    row = OverrideTable(image_id=image_id, verdict=verdict, why=why, who=who)
    session.add(row)
    session.flush()
    return _override(row)


def withdraw_override(session: Session, image_id: int, who: str) -> bool:
    """Withdraw the override of an image, so that the checks decide again; return True if there was one."""
    is_active = (OverrideTable.image_id == image_id) & OverrideTable.withdrawn_at.is_(None)
    override_ids = session.scalars(select(OverrideTable.id).where(is_active)).all()
    session.execute(update(OverrideTable).where(is_active).values(withdrawn_at=utc_now(), withdrawn_by=who))
    return bool(override_ids)


def overrides_of(session: Session, image_ids: Sequence[int]) -> Mapping[int, Override]:
    """Read the overrides in force, by image id."""
    overrides: dict[int, Override] = {}
    for chunk in chunks(image_ids):
        statement = select(OverrideTable).where(OverrideTable.image_id.in_(chunk), OverrideTable.withdrawn_at.is_(None))
        overrides.update((row.image_id, _override(row)) for row in session.scalars(statement))
    return overrides


def override_history(session: Session, image_id: int) -> tuple[Override, ...]:
    """List all overrides of an image, withdrawn ones included, oldest first."""
    statement = select(OverrideTable).where(OverrideTable.image_id == image_id).order_by(OverrideTable.id)
    return tuple(_override(row) for row in session.scalars(statement))


def purged_reasons(session: Session, shas: Sequence[str]) -> dict[str, str]:
    """Read the reasons of the given images that were taken down, by SHA-256. Their bytes must not return."""
    reasons: dict[str, str] = {}
    for chunk in chunks(shas):
        statement = select(ImageTable.sha256, ImageTable.reason).where(
            ImageTable.sha256.in_(chunk), ImageTable.rejected_by == PURGED
        )
        reasons.update((sha256, reason or PURGED) for sha256, reason in session.execute(statement))
    return reasons


def tombstones(session: Session) -> dict[str, str]:
    """Read the reasons of all images that were taken down, by SHA-256."""
    statement = select(ImageTable.sha256, ImageTable.reason).where(
        ImageTable.verdict == "rejected", ImageTable.rejected_by == PURGED
    )
    return {sha256: reason or PURGED for sha256, reason in session.execute(statement)}


def _override(row: OverrideTable) -> Override:
    verdict = cast("OverrideVerdict", row.verdict)
    return Override(verdict, row.why, row.who, row.made_at, row.withdrawn_at, row.withdrawn_by)
