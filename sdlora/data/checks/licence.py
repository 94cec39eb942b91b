"""Licence check against the list of allowed licences."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from sqlalchemy import select
from sqlalchemy.orm import Session

from sdlora.data.checks.base import Findings, RecordCheck
from sdlora.data.config import DataConfig
from sdlora.store.tables.datasets import MemberTable


def licence_allowed(session: Session, member_ids: Sequence[int], config: DataConfig) -> Findings:
    """1 if the recorded licence matches one of the allowed ones, else 0."""
    if not config.allowed_licences:
        return {}
    rows = session.execute(select(MemberTable.id, MemberTable.licence).where(MemberTable.id.in_(member_ids)))
    return {member_id: _judge(licence, config) for member_id, licence in rows}


def _judge(licence: str | None, config: DataConfig) -> tuple[float, str | None]:
    name = (licence or "").strip().casefold()
    if any(fnmatchcase(name, pattern.strip().casefold()) for pattern in config.allowed_licences if name):
        return 1.0, None
    subject = f"licence {licence!r} is" if name else "no licence is recorded, so it is"
    return 0.0, f"{subject} not among allowed_licences = {', '.join(config.allowed_licences)}"


LICENCE = RecordCheck("licence", 1, licence_allowed, ("allowed_licences",))
