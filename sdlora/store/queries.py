"""Queries of the image database: lists, counts, one image, captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from sqlalchemy import Select, func, select, union
from sqlalchemy.orm import Session, aliased, selectinload

from sdlora.core.errors import DataError
from sdlora.store.intake import chunks
from sdlora.store.overrides import PURGED
from sdlora.store.records import (
    Caption,
    Counts,
    ImageRecord,
    Origin,
    Split,
    Verdict,
    captions_of_group,
    prevailing_captions,
)
from sdlora.store.tables import CaptionTable, FileTable, GenerationTable, ImageTable, SourceTable

_CAPTION_ORDER = (SourceTable.name, FileTable.path, CaptionTable.position, CaptionTable.text)


def list_images(
    session: Session,
    verdict: Verdict | None = None,
    rejected_by: str | None = None,
    caption: str | None = None,
    limit: int | None = None,
    offset: int = 0,
) -> list[ImageRecord]:
    """List images that have all given properties, in the order of collection.

    Args:
        rejected_by: name of a check, such as "near_duplicate".
        caption: text that one of the captions of the image or its rejected copies contains, ignoring case.
    """
    statement = select(ImageTable).order_by(ImageTable.id).limit(limit).offset(offset)
    if verdict is not None:
        statement = statement.where(ImageTable.verdict == verdict)
    if rejected_by is not None:
        statement = statement.where(ImageTable.rejected_by == rejected_by)
    if caption is not None:
        matches = CaptionTable.text.icontains(caption, autoescape=True)
        copies = aliased(ImageTable)
        of_copies = select(copies.copy_of_id).join(CaptionTable, CaptionTable.image_id == copies.id).where(matches)
        statement = statement.where(ImageTable.captions.any(matches) | ImageTable.id.in_(of_copies))
    return _records(session, statement)


def find_image(session: Session, sha256: str) -> ImageRecord:
    """Find the collected image whose SHA-256 starts with the digits.

    Raises:
        DataError: no collected image, or more than one, starts with the digits.
    """
    statement = select(ImageTable).where(ImageTable.sha256.startswith(sha256.lower(), autoescape=True)).limit(3)
    images = _records(session, statement) if sha256 else []
    if len(images) == 1:
        return images[0]
    if not images:
        drawn = find_sha256(session, sha256)
        raise DataError(
            f"Image {drawn[:12]} was drawn by a model and is not collected, so it has no verdict and no captions. "
            "Collect drawn images that people rated highly: sdlora collect 'generated://?min_stars=4'"
        )
    raise _not_one(sha256, [image.sha256 for image in images])


def find_sha256(session: Session, prefix: str) -> str:
    """Find the full SHA-256 of the collected or drawn image that starts with the digits.

    Raises:
        DataError: no image, or more than one, starts with the digits.
    """
    matches: Sequence[str] = ()
    if prefix:
        statement = union(
            *(
                select(table.sha256)
                .where(table.sha256.startswith(prefix.lower(), autoescape=True))
                .distinct()
                .limit(3)
                .subquery()
                .select()
                for table in (ImageTable, GenerationTable)
            )
        )
        matches = session.execute(statement).scalars().all()
    if len(matches) != 1:
        raise _not_one(prefix, matches)
    return matches[0]


def _not_one(prefix: str, found: Sequence[str]) -> DataError:
    names = ", ".join(sorted(sha256[:16] for sha256 in found)) or "none"
    return DataError(
        f"Image {prefix!r}: expected the first digits of one image's SHA-256, found {names}. "
        "`sdlora images` lists collected images, `sdlora images --drawn` drawn ones."
    )


def sample_blobs(session: Session, limit: int) -> list[tuple[str, int]]:
    """Return (SHA-256, size) of at most `limit` images that were not taken down, evenly spread over the table."""
    step = max(1, (session.scalars(select(func.max(ImageTable.id))).one() or 0) // limit)
    statement = (
        select(ImageTable.sha256, ImageTable.byte_size)
        .where(ImageTable.id % step == 0, ImageTable.rejected_by.is_distinct_from(PURGED))
        .limit(limit)
    )
    return [(sha256, byte_size) for sha256, byte_size in session.execute(statement)]


def count_images(session: Session) -> Counts:
    """Count images by verdict, and rejected images by check, the most frequent check first."""
    statement = (
        select(ImageTable.verdict, ImageTable.rejected_by, func.count())
        .group_by(ImageTable.verdict, ImageTable.rejected_by)
        .order_by(func.count().desc(), ImageTable.rejected_by)
    )
    rows = session.execute(statement).all()
    return Counts(
        accepted=sum(count for verdict, _, count in rows if verdict == "accepted"),
        rejected=sum(count for verdict, _, count in rows if verdict == "rejected"),
        pending=sum(count for verdict, _, count in rows if verdict is None),
        rejected_by={check: count for verdict, check, count in rows if verdict == "rejected" and check},
    )


def own_captions_of(session: Session, image_ids: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """Select the prevailing captions of the images' own files, by image id; images without captions are omitted.

    Checks judge these, because they run before the copies are known.
    """
    return {image_id: prevailing_captions(captions) for image_id, captions in _recorded(session, image_ids).items()}


def captions_of(session: Session, image_ids: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """Select the captions used in training, by image id; images without captions are omitted.

    A kept image has the captions of its rejected copies too (`captions_of_group`). Captions are ordered by name of the
    source, path of the file, and position in the file: the same on every machine.
    """
    own = _recorded(session, image_ids)
    exact, near = _recorded_of_copies(session, image_ids)
    captioned_ids = [image_id for image_id in image_ids if image_id in own or image_id in exact or image_id in near]
    return {
        image_id: captions_of_group([*own.get(image_id, ()), *exact.get(image_id, ())], near.get(image_id, ()))
        for image_id in captioned_ids
    }


def _recorded(session: Session, image_ids: Sequence[int]) -> dict[int, list[Caption]]:
    """Read all captions by image id."""
    recorded: dict[int, list[Caption]] = {}
    for chunk in chunks(image_ids):
        statement = (
            select(CaptionTable.image_id, CaptionTable.text, CaptionTable.origin)
            .outerjoin(SourceTable, SourceTable.id == CaptionTable.source_id)
            .outerjoin(FileTable, FileTable.id == CaptionTable.file_id)
            .where(CaptionTable.image_id.in_(chunk))
            .order_by(CaptionTable.image_id, *_CAPTION_ORDER)
        )
        for image_id, text, origin in session.execute(statement):
            recorded.setdefault(image_id, []).append(Caption(text, cast("Origin", origin)))
    return recorded


def _recorded_of_copies(
    session: Session, image_ids: Sequence[int]
) -> tuple[dict[int, list[Caption]], dict[int, list[Caption]]]:
    """Read all captions of rejected copies by the id of the kept image: of exact copies, and of near copies."""
    exact: dict[int, list[Caption]] = {}
    near: dict[int, list[Caption]] = {}
    for chunk in chunks(image_ids):
        statement = (
            select(ImageTable.copy_of_id, ImageTable.rejected_by, CaptionTable.text, CaptionTable.origin)
            .join(CaptionTable, CaptionTable.image_id == ImageTable.id)
            .outerjoin(SourceTable, SourceTable.id == CaptionTable.source_id)
            .outerjoin(FileTable, FileTable.id == CaptionTable.file_id)
            .where(ImageTable.copy_of_id.in_(chunk))
            .order_by(*_CAPTION_ORDER, ImageTable.sha256)
        )
        for kept_id, rejected_by, text, origin in session.execute(statement):
            of_kind = exact if rejected_by == "exact_duplicate" else near
            of_kind.setdefault(kept_id, []).append(Caption(text, cast("Origin", origin)))
    return exact, near


def _records(session: Session, statement: Select[tuple[ImageTable]]) -> list[ImageRecord]:
    rows = session.scalars(statement.options(selectinload(ImageTable.files).joinedload(FileTable.source))).all()
    captions = captions_of(session, [row.id for row in rows])
    return [_record(row, captions.get(row.id, ())) for row in rows]


def _record(row: ImageTable, captions: tuple[str, ...]) -> ImageRecord:
    return ImageRecord(
        sha256=row.sha256,
        byte_size=row.byte_size,
        format=row.format,
        width=row.width,
        height=row.height,
        verdict=cast("Verdict | None", row.verdict),
        rejected_by=row.rejected_by,
        reason=row.reason,
        captions=captions,
        split=cast("Split | None", row.split),
        source=row.source,
        licence=row.licence,
        collected_at=row.collected_at,
        files=tuple(f"{file.source.name}/{file.path}" for file in row.files),
    )
