"""Figures of the image database; the database groups and counts, so that a million images need no memory here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from sqlalchemy import Integer, case, func, or_, select
from sqlalchemy import cast as as_type
from sqlalchemy.orm import Session, aliased

from sdlora.store.overrides import Override, OverrideVerdict
from sdlora.store.tables import CaptionTable, FileTable, ImageTable, OverrideTable, SimilarPairTable, SourceTable

UNKNOWN = "not stated"
_ACCEPTED = ImageTable.verdict == "accepted"


@dataclass(frozen=True)
class SourceFigures:
    """Number of files and images of a source. `images` counts an image once, even if several files show it."""

    name: str
    files: int
    images: int
    accepted: int
    rejected: int


@dataclass(frozen=True)
class NearDuplicatePair:
    """Near duplicate, the image that is kept instead, and their difference in grey levels."""

    kept: str
    left_out: str
    difference: float


@dataclass(frozen=True)
class ImageOverride:
    """Override in force and the SHA-256 of its image."""

    sha256: str
    override: Override


def source_figures(session: Session) -> tuple[SourceFigures, ...]:
    """Count files and images by source, the largest source first."""
    files = select(FileTable.source_id, FileTable.image_id, func.count().label("files"))
    files_of_image = files.group_by(FileTable.source_id, FileTable.image_id).subquery()
    rejected = case((ImageTable.verdict == "rejected", 1), else_=0)
    statement = (
        select(
            SourceTable.name,
            func.sum(files_of_image.c.files),
            func.count(),
            func.sum(case((_ACCEPTED, 1), else_=0)),
            func.sum(rejected),
        )
        .join(files_of_image, files_of_image.c.source_id == SourceTable.id)
        .join(ImageTable, ImageTable.id == files_of_image.c.image_id)
        .group_by(SourceTable.id, SourceTable.name)
        .order_by(func.count().desc(), SourceTable.name)
    )
    return tuple(SourceFigures(name, *(int(value) for value in values)) for name, *values in session.execute(statement))


def licence_figures(session: Session) -> dict[str, tuple[int, int]]:
    """Count (accepted, rejected) images by licence."""
    licence = func.coalesce(ImageTable.licence, UNKNOWN)
    accepted, rejected = (case((ImageTable.verdict == verdict, 1), else_=0) for verdict in ("accepted", "rejected"))
    statement = select(licence, func.sum(accepted), func.sum(rejected)).group_by(licence).order_by(func.count().desc())
    return {
        name: (int(accepted_count), int(rejected_count))
        for name, accepted_count, rejected_count in session.execute(statement)
    }


def size_figures(session: Session) -> dict[tuple[int, int], int]:
    """Count accepted images by (width, height) in pixels."""
    statement = (
        select(ImageTable.width, ImageTable.height, func.count())
        .where(_ACCEPTED, ImageTable.width.is_not(None), ImageTable.height.is_not(None))
        .group_by(ImageTable.width, ImageTable.height)
    )
    return {(width or 0, height or 0): count for width, height, count in session.execute(statement)}


def caption_figures(session: Session) -> dict[int, int]:
    """Count captions of accepted images by number of words; 0 counts images without a caption."""
    words = func.length(CaptionTable.text) - func.length(func.replace(CaptionTable.text, " ", "")) + 1
    word_count = as_type(words, Integer)
    statement = (
        select(word_count, func.count())
        .join(ImageTable, ImageTable.id == CaptionTable.image_id)
        .where(_ACCEPTED)
        .group_by(word_count)
    )
    counts = {int(words_per_caption): count for words_per_caption, count in session.execute(statement)}
    uncaptioned = select(func.count()).select_from(ImageTable).where(_ACCEPTED, ~ImageTable.captions.any())
    uncaptioned_count = session.scalar(uncaptioned) or 0
    return ({0: uncaptioned_count} if uncaptioned_count else {}) | counts


def near_duplicate_pairs(session: Session, check: str, limit: int) -> tuple[NearDuplicatePair, ...]:
    """List images that `check` rejected as near duplicates, each with its nearest kept image."""
    kept, left_out = aliased(ImageTable), aliased(ImageTable)
    first_id, second_id = SimilarPairTable.first_id, SimilarPairTable.second_id
    is_other_side = or_(
        (left_out.fingerprint_id == first_id) & (kept.fingerprint_id == second_id),
        (left_out.fingerprint_id == second_id) & (kept.fingerprint_id == first_id),
    )
    statement = (
        select(left_out.id, kept.sha256, left_out.sha256, SimilarPairTable.difference)
        .join(SimilarPairTable, (left_out.fingerprint_id == first_id) | (left_out.fingerprint_id == second_id))
        .join(kept, is_other_side)
        .where(left_out.rejected_by == check, kept.verdict == "accepted")
        .order_by(SimilarPairTable.difference.desc(), left_out.id)
        .limit(4 * limit)
    )
    nearest: dict[int, NearDuplicatePair] = {}
    for image_id, kept_sha256, sha256, difference in session.execute(statement):
        nearest[image_id] = NearDuplicatePair(kept_sha256, sha256, difference)  # the smallest difference comes last
    return tuple(sorted(nearest.values(), key=lambda pair: -pair.difference)[:limit])


def list_overrides(session: Session, limit: int) -> tuple[ImageOverride, ...]:
    """List the overrides in force, the newest first."""
    statement = (
        select(OverrideTable, ImageTable.sha256)
        .join(ImageTable, ImageTable.id == OverrideTable.image_id)
        .where(OverrideTable.withdrawn_at.is_(None))
        .order_by(OverrideTable.id.desc())
        .limit(limit)
    )
    return tuple(
        ImageOverride(sha256, Override(cast("OverrideVerdict", row.verdict), row.why, row.who, row.made_at))
        for row, sha256 in session.execute(statement)
    )
