"""Queries of the image database: lists, counts, one image, captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from sqlalchemy import Select, func, select, union
from sqlalchemy.orm import Session, joinedload, selectinload

from sdlora.core.errors import DataError
from sdlora.store.bulk import chunks
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
from sdlora.store.selection import Selection
from sdlora.store.tables.datasets import CaptionTable, DatasetTable, FileTable, MemberTable, SourceTable
from sdlora.store.tables.images import ImageTable, TakedownTable
from sdlora.store.tables.ratings import GenerationTable

_EVERY_IMAGE = Selection()

_CAPTION_ORDER = (SourceTable.name, FileTable.path, CaptionTable.position, CaptionTable.text)


def list_images(
    session: Session,
    dataset_id: int,
    selection: Selection = _EVERY_IMAGE,
    limit: int | None = None,
    offset: int = 0,
    *,
    removed: bool = False,
) -> list[ImageRecord]:
    """List the selected images of a dataset, in the order in which they joined it.

    Args:
        removed: list images that were removed from the dataset instead of its members.
    """
    is_listed = MemberTable.removed_at.is_not(None) if removed else MemberTable.removed_at.is_(None)
    statement = members_of(dataset_id).where(is_listed, *selection.conditions())
    return _records(session, statement.order_by(MemberTable.id).limit(limit).offset(offset))


def find_image(session: Session, dataset_id: int, sha256: str) -> ImageRecord:
    """Find the image of the dataset whose SHA-256 starts with the digits; it may have been removed.

    Raises:
        DataError: no image of the dataset, or more than one, starts with the digits.
    """
    (record,) = _records(
        session, members_of(dataset_id).where(MemberTable.id == find_member(session, dataset_id, sha256))
    )
    return record


def find_member(session: Session, dataset_id: int, sha256: str) -> int:
    """Find the id of the member whose SHA-256 starts with the digits; it may have been removed.

    Raises:
        DataError: no image of the dataset, or more than one, starts with the digits.
    """
    statement = select(MemberTable.id, ImageTable.sha256).join(ImageTable, ImageTable.id == MemberTable.image_id)
    has_prefix = ImageTable.sha256.startswith(sha256.lower(), autoescape=True)
    of_dataset = statement.where(MemberTable.dataset_id == dataset_id, has_prefix).limit(3)
    matches = session.execute(of_dataset).all() if sha256 else []
    if len(matches) > 1:
        raise _not_one(sha256, [row.sha256 for row in matches])
    if not matches:
        full_sha256 = find_collected(session, sha256)
        dataset = session.get_one(DatasetTable, dataset_id).name
        names = ", ".join(map(repr, datasets_of(session, full_sha256))) or "no dataset"
        raise DataError(
            f"Image {full_sha256[:12]} is not in dataset {dataset!r}. It is in {names} (--dataset). "
            f"`sdlora datasets add {dataset}` adds images of another dataset."
        )
    member_id: int = matches[0].id
    return member_id


def find_collected(session: Session, prefix: str) -> str:
    """Find the full SHA-256 of the image, of whatever dataset, that starts with the digits.

    Raises:
        DataError: no collected image, or more than one, starts with the digits.
    """
    has_prefix = ImageTable.sha256.startswith(prefix.lower(), autoescape=True)
    matches = session.scalars(select(ImageTable.sha256).where(has_prefix).limit(3)).all() if prefix else []
    if len(matches) == 1:
        return matches[0]
    if not matches:
        drawn = find_sha256(session, prefix)
        raise DataError(
            f"Image {drawn[:12]} was drawn by a model and is not collected, so it has no verdict and no captions. "
            "Collect drawn images that people rated highly: sdlora collect 'generated://?min_stars=4'"
        )
    raise _not_one(prefix, matches)


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


def datasets_of(session: Session, sha256: str) -> list[str]:
    """List the names of the datasets that an image, given by its full SHA-256, belongs to."""
    statement = (
        select(DatasetTable.name)
        .join(MemberTable, MemberTable.dataset_id == DatasetTable.id)
        .join(ImageTable, ImageTable.id == MemberTable.image_id)
        .where(ImageTable.sha256 == sha256, MemberTable.removed_at.is_(None))
        .order_by(DatasetTable.name)
    )
    return list(session.scalars(statement))


def sample_blobs(session: Session, limit: int) -> list[tuple[str, int]]:
    """Return (SHA-256, size) of at most `limit` images that were not taken down, evenly spread over the table."""
    step = max(1, (session.scalars(select(func.max(ImageTable.id))).one() or 0) // limit)
    statement = (
        select(ImageTable.sha256, ImageTable.byte_size)
        .where(ImageTable.id % step == 0, ImageTable.id.not_in(select(TakedownTable.image_id)))
        .limit(limit)
    )
    return [(sha256, byte_size) for sha256, byte_size in session.execute(statement)]


def count_images(session: Session, dataset_id: int) -> Counts:
    """Count images of a dataset by verdict, and rejected images by check, the most frequent check first."""
    statement = (
        select(MemberTable.verdict, MemberTable.rejected_by, func.count())
        .where(MemberTable.dataset_id == dataset_id, MemberTable.removed_at.is_(None))
        .group_by(MemberTable.verdict, MemberTable.rejected_by)
        .order_by(func.count().desc(), MemberTable.rejected_by)
    )
    rows = session.execute(statement).all()
    return Counts(
        accepted=sum(count for verdict, _, count in rows if verdict == "accepted"),
        rejected=sum(count for verdict, _, count in rows if verdict == "rejected"),
        pending=sum(count for verdict, _, count in rows if verdict is None),
        rejected_by={check: count for verdict, check, count in rows if verdict == "rejected" and check},
    )


def own_captions_of(session: Session, member_ids: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """Select the prevailing captions of the members' own files, by member id; members without captions are omitted.

    Checks judge these, because they run before the copies are known.
    """
    return {member_id: prevailing_captions(captions) for member_id, captions in _recorded(session, member_ids).items()}


def captions_of(session: Session, member_ids: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """Select the captions used in training, by member id; members without captions are omitted.

    A kept image has the captions of its rejected copies too (`captions_of_group`). Captions are ordered by name of the
    source, path of the file, and position in the file: the same on every machine.
    """
    own = _recorded(session, member_ids)
    exact, near = _recorded_of_copies(session, member_ids)
    captioned_ids = [
        member_id for member_id in member_ids if member_id in own or member_id in exact or member_id in near
    ]
    return {
        member_id: captions_of_group([*own.get(member_id, ()), *exact.get(member_id, ())], near.get(member_id, ()))
        for member_id in captioned_ids
    }


def _recorded(session: Session, member_ids: Sequence[int]) -> dict[int, list[Caption]]:
    """Read all captions by member id."""
    recorded: dict[int, list[Caption]] = {}
    for chunk in chunks(member_ids):
        statement = (
            select(CaptionTable.member_id, CaptionTable.text, CaptionTable.origin)
            .outerjoin(SourceTable, SourceTable.id == CaptionTable.source_id)
            .outerjoin(FileTable, FileTable.id == CaptionTable.file_id)
            .where(CaptionTable.member_id.in_(chunk))
            .order_by(CaptionTable.member_id, *_CAPTION_ORDER)
        )
        for member_id, text, origin in session.execute(statement):
            recorded.setdefault(member_id, []).append(Caption(text, cast("Origin", origin)))
    return recorded


def _recorded_of_copies(
    session: Session, member_ids: Sequence[int]
) -> tuple[dict[int, list[Caption]], dict[int, list[Caption]]]:
    """Read all captions of rejected copies by the id of the kept member: of exact copies, and of near copies."""
    exact: dict[int, list[Caption]] = {}
    near: dict[int, list[Caption]] = {}
    for chunk in chunks(member_ids):
        statement = (
            select(MemberTable.copy_of_id, MemberTable.rejected_by, CaptionTable.text, CaptionTable.origin)
            .join(CaptionTable, CaptionTable.member_id == MemberTable.id)
            .join(ImageTable, ImageTable.id == MemberTable.image_id)
            .outerjoin(SourceTable, SourceTable.id == CaptionTable.source_id)
            .outerjoin(FileTable, FileTable.id == CaptionTable.file_id)
            .where(MemberTable.copy_of_id.in_(chunk))
            .order_by(*_CAPTION_ORDER, ImageTable.sha256)
        )
        for kept_id, rejected_by, text, origin in session.execute(statement):
            of_kind = exact if rejected_by == "exact_duplicate" else near
            of_kind.setdefault(kept_id, []).append(Caption(text, cast("Origin", origin)))
    return exact, near


def members_of(dataset_id: int) -> Select[tuple[MemberTable]]:
    """Return the statement for all members of a dataset with their images, removed ones included."""
    statement = select(MemberTable).join(ImageTable, ImageTable.id == MemberTable.image_id)
    return statement.where(MemberTable.dataset_id == dataset_id)


def _records(session: Session, statement: Select[tuple[MemberTable]]) -> list[ImageRecord]:
    options = (
        joinedload(MemberTable.image),
        joinedload(MemberTable.decoding),
        selectinload(MemberTable.files).joinedload(FileTable.source),
    )
    rows = session.scalars(statement.options(*options)).all()
    captions = captions_of(session, [row.id for row in rows])
    names = dict(session.execute(select(DatasetTable.id, DatasetTable.name)).tuples().all())
    return [_record(row, names[row.dataset_id], captions.get(row.id, ())) for row in rows]


def _record(row: MemberTable, dataset: str, captions: tuple[str, ...]) -> ImageRecord:
    return ImageRecord(
        sha256=row.image.sha256,
        dataset=dataset,
        byte_size=row.image.byte_size,
        format=row.decoding.format if row.decoding else None,
        width=row.decoding.width if row.decoding else None,
        height=row.decoding.height if row.decoding else None,
        verdict=cast("Verdict | None", row.verdict),
        rejected_by=row.rejected_by,
        reason=row.reason,
        captions=captions,
        split=cast("Split | None", row.split),
        source=row.source,
        licence=row.licence,
        collected_at=row.image.collected_at,
        files=tuple(f"{file.source.name}/{file.path}" for file in row.files),
        removed_at=row.removed_at,
    )
