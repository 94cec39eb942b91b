"""Figures of a dataset; the database groups and counts, so that a million images need no memory here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from sqlalchemy import ColumnElement, Integer, and_, case, func, select
from sqlalchemy import cast as as_type
from sqlalchemy.orm import Session, aliased

from sdlora.store.overrides import PURGED, Override, OverrideVerdict
from sdlora.store.tables.datasets import CaptionTable, FileTable, MemberTable, OverrideTable, RulingTable, SourceTable
from sdlora.store.tables.images import DecodingTable, ImageTable, TakedownTable

UNKNOWN = "not stated"
_ACCEPTED = MemberTable.verdict == "accepted"


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


def source_figures(session: Session, dataset_id: int) -> tuple[SourceFigures, ...]:
    """Count files and images by source, the largest source first."""
    files = select(FileTable.source_id, FileTable.member_id, func.count().label("files"))
    files_of_member = files.group_by(FileTable.source_id, FileTable.member_id).subquery()
    rejected = case((MemberTable.verdict == "rejected", 1), else_=0)
    statement = (
        select(
            SourceTable.name,
            func.sum(files_of_member.c.files),
            func.count(),
            func.sum(case((_ACCEPTED, 1), else_=0)),
            func.sum(rejected),
        )
        .join(files_of_member, files_of_member.c.source_id == SourceTable.id)
        .join(MemberTable, MemberTable.id == files_of_member.c.member_id)
        .where(_is_of(dataset_id))
        .group_by(SourceTable.id, SourceTable.name)
        .order_by(func.count().desc(), SourceTable.name)
    )
    return tuple(SourceFigures(name, *(int(value) for value in values)) for name, *values in session.execute(statement))


def licence_figures(session: Session, dataset_id: int) -> dict[str, tuple[int, int]]:
    """Count (accepted, rejected) images by licence."""
    licence = func.coalesce(MemberTable.licence, UNKNOWN)
    accepted, rejected = (case((MemberTable.verdict == verdict, 1), else_=0) for verdict in ("accepted", "rejected"))
    statement = select(licence, func.sum(accepted), func.sum(rejected)).where(_is_of(dataset_id))
    statement = statement.group_by(licence).order_by(func.count().desc())
    return {
        name: (int(accepted_count), int(rejected_count))
        for name, accepted_count, rejected_count in session.execute(statement)
    }


def size_figures(session: Session, dataset_id: int) -> dict[tuple[int, int], int]:
    """Count accepted images by (width, height) in pixels."""
    statement = (
        select(DecodingTable.width, DecodingTable.height, func.count())
        .join(MemberTable, MemberTable.decoding_id == DecodingTable.id)
        .where(_is_of(dataset_id), _ACCEPTED, DecodingTable.width.is_not(None), DecodingTable.height.is_not(None))
        .group_by(DecodingTable.width, DecodingTable.height)
    )
    return {(width or 0, height or 0): count for width, height, count in session.execute(statement)}


def caption_figures(session: Session, dataset_id: int) -> dict[int, int]:
    """Count captions of accepted images by number of words; 0 counts images without a caption."""
    words = func.length(CaptionTable.text) - func.length(func.replace(CaptionTable.text, " ", "")) + 1
    word_count = as_type(words, Integer)
    statement = (
        select(word_count, func.count())
        .join(MemberTable, MemberTable.id == CaptionTable.member_id)
        .where(_is_of(dataset_id), _ACCEPTED)
        .group_by(word_count)
    )
    counts = {int(words_per_caption): count for words_per_caption, count in session.execute(statement)}
    uncaptioned = select(func.count()).where(_is_of(dataset_id), _ACCEPTED, ~MemberTable.captions.any())
    uncaptioned_count = session.scalar(uncaptioned) or 0
    return ({0: uncaptioned_count} if uncaptioned_count else {}) | counts


def near_duplicate_pairs(session: Session, dataset_id: int, check: str, limit: int) -> tuple[NearDuplicatePair, ...]:
    """List images that `check` rejected as near duplicates, each with the image that is kept instead."""
    kept, kept_image = aliased(MemberTable), aliased(ImageTable)
    statement = (
        select(kept_image.sha256, ImageTable.sha256, RulingTable.score)
        .select_from(MemberTable)
        .join(ImageTable, ImageTable.id == MemberTable.image_id)
        .join(kept, kept.id == MemberTable.copy_of_id)
        .join(kept_image, kept_image.id == kept.image_id)
        .join(RulingTable, and_(RulingTable.member_id == MemberTable.id, RulingTable.name == check))
        .where(_is_of(dataset_id), MemberTable.rejected_by == check, RulingTable.score.is_not(None))
        .order_by(RulingTable.score.desc(), MemberTable.id)
        .limit(limit)
    )
    return tuple(
        NearDuplicatePair(kept_sha256, sha256, difference or 0.0)
        for kept_sha256, sha256, difference in session.execute(statement)
    )


def list_overrides(session: Session, dataset_id: int, limit: int) -> tuple[ImageOverride, ...]:
    """List the overrides in force and the takedowns, the newest first."""
    image = (ImageTable, ImageTable.id == MemberTable.image_id)
    overrides = (
        select(OverrideTable, ImageTable.sha256)
        .join(MemberTable, MemberTable.id == OverrideTable.member_id)
        .join(*image)
        .where(_is_of(dataset_id), OverrideTable.withdrawn_at.is_(None))
        .order_by(OverrideTable.id.desc())
    )
    takedowns = (
        select(TakedownTable, ImageTable.sha256)
        .join(MemberTable, MemberTable.image_id == TakedownTable.image_id)
        .join(*image)
        .where(_is_of(dataset_id))
        .order_by(TakedownTable.made_at.desc())
    )
    listed = [
        ImageOverride(sha256, Override(cast("OverrideVerdict", row.verdict), row.why, row.who, row.made_at))
        for row, sha256 in session.execute(overrides.limit(limit))
    ]
    listed += [
        ImageOverride(sha256, Override(PURGED, row.why, row.who, row.made_at))
        for row, sha256 in session.execute(takedowns.limit(limit))
    ]
    return tuple(sorted(listed, key=lambda image: image.override.made_at, reverse=True)[:limit])


def _is_of(dataset_id: int) -> ColumnElement[bool]:
    return and_(MemberTable.dataset_id == dataset_id, MemberTable.removed_at.is_(None))
