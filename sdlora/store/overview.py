"""The image database in figures: grouped by the database itself, so that a million images cost no memory here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from sqlalchemy import Integer, case, func, or_, select
from sqlalchemy import cast as as_type
from sqlalchemy.orm import Session, aliased

from sdlora.store.overrides import Override, Word
from sdlora.store.tables import CaptionTable, FileTable, ImageTable, OverrideTable, SimilarPairTable, SourceTable

UNKNOWN = "not stated"
_ACCEPTED = ImageTable.verdict == "accepted"


@dataclass(frozen=True)
class SourceFigures:
    """What one source brought. `images` counts images, of which several files may show the same."""

    name: str
    files: int
    images: int
    accepted: int
    rejected: int


@dataclass(frozen=True)
class LikePair:
    """A near duplicate and the image that is kept instead, and by how much they differ, in grey levels."""

    kept: str
    left_out: str
    difference: float


@dataclass(frozen=True)
class Decided:
    """A person's decision that counts, and the image it is about."""

    sha256: str
    override: Override


def source_figures(session: Session) -> tuple[SourceFigures, ...]:
    """Every source by what it brought, the largest first."""
    seen = select(FileTable.source_id, FileTable.image_id, func.count().label("files"))
    seen_once = seen.group_by(FileTable.source_id, FileTable.image_id).subquery()
    rejected = case((ImageTable.verdict == "rejected", 1), else_=0)
    statement = (
        select(
            SourceTable.name,
            func.sum(seen_once.c.files),
            func.count(),
            func.sum(case((_ACCEPTED, 1), else_=0)),
            func.sum(rejected),
        )
        .join(seen_once, seen_once.c.source_id == SourceTable.id)
        .join(ImageTable, ImageTable.id == seen_once.c.image_id)
        .group_by(SourceTable.id, SourceTable.name)
        .order_by(func.count().desc(), SourceTable.name)
    )
    return tuple(SourceFigures(name, *(int(value) for value in values)) for name, *values in session.execute(statement))


def licence_figures(session: Session) -> dict[str, tuple[int, int]]:
    """(accepted, rejected) images by the licence their sources state."""
    licence = func.coalesce(ImageTable.licence, UNKNOWN)
    accepted, rejected = (case((ImageTable.verdict == verdict, 1), else_=0) for verdict in ("accepted", "rejected"))
    statement = select(licence, func.sum(accepted), func.sum(rejected)).group_by(licence).order_by(func.count().desc())
    return {name: (int(kept), int(left)) for name, kept, left in session.execute(statement)}


def size_figures(session: Session) -> dict[tuple[int, int], int]:
    """Accepted images by (width, height) in pixels."""
    statement = (
        select(ImageTable.width, ImageTable.height, func.count())
        .where(_ACCEPTED, ImageTable.width.is_not(None), ImageTable.height.is_not(None))
        .group_by(ImageTable.width, ImageTable.height)
    )
    return {(width or 0, height or 0): count for width, height, count in session.execute(statement)}


def caption_figures(session: Session) -> dict[int, int]:
    """Captions of accepted images by their number of words; 0 stands for images without any caption."""
    words = func.length(CaptionTable.text) - func.length(func.replace(CaptionTable.text, " ", "")) + 1
    number = as_type(words, Integer)
    statement = (
        select(number, func.count())
        .join(ImageTable, ImageTable.id == CaptionTable.image_id)
        .where(_ACCEPTED)
        .group_by(number)
    )
    found = {int(count_of_words): count for count_of_words, count in session.execute(statement)}
    silent = select(func.count()).select_from(ImageTable).where(_ACCEPTED, ~ImageTable.captions.any())
    without = session.scalar(silent) or 0
    return ({0: without} if without else {}) | found


def like_pairs(session: Session, check: str, limit: int) -> tuple[LikePair, ...]:
    """Images that `check` turned down as near duplicates, each beside the kept image that is nearest to it."""
    kept, left_out = aliased(ImageTable), aliased(ImageTable)
    first, second = SimilarPairTable.first_id, SimilarPairTable.second_id
    joined = or_(
        (left_out.fingerprint_id == first) & (kept.fingerprint_id == second),
        (left_out.fingerprint_id == second) & (kept.fingerprint_id == first),
    )
    statement = (
        select(left_out.id, kept.sha256, left_out.sha256, SimilarPairTable.difference)
        .join(SimilarPairTable, (left_out.fingerprint_id == first) | (left_out.fingerprint_id == second))
        .join(kept, joined)
        .where(left_out.rejected_by == check, kept.verdict == "accepted")
        .order_by(SimilarPairTable.difference.desc(), left_out.id)
        .limit(4 * limit)
    )
    nearest: dict[int, LikePair] = {}
    for image_id, kept_sha256, sha256, difference in session.execute(statement):
        nearest[image_id] = LikePair(kept_sha256, sha256, difference)  # the smallest difference comes last
    return tuple(sorted(nearest.values(), key=lambda pair: -pair.difference)[:limit])


def decided_by_people(session: Session, limit: int) -> tuple[Decided, ...]:
    """The decisions of people that count today, the newest first."""
    statement = (
        select(OverrideTable, ImageTable.sha256)
        .join(ImageTable, ImageTable.id == OverrideTable.image_id)
        .where(OverrideTable.withdrawn_at.is_(None))
        .order_by(OverrideTable.id.desc())
        .limit(limit)
    )
    return tuple(
        Decided(sha256, Override(cast("Word", row.verdict), row.why, row.who, row.made_at))
        for row, sha256 in session.execute(statement)
    )
