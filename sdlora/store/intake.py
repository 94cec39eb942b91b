"""Intake of collected files into a dataset: writes sources, images, members, files, captions and masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from sdlora.store.bulk import chunks, insert_or_ignore, insert_or_update
from sdlora.store.captions import caption_row, recorded_captions, reset_rules
from sdlora.store.ids import image_ids, member_ids
from sdlora.store.masks import Mask, replace_masks
from sdlora.store.records import Caption
from sdlora.store.tables.base import utc_now
from sdlora.store.tables.datasets import CaptionTable, FileTable, MaskTable, MemberTable, SourceTable
from sdlora.store.tables.images import ImageTable, TakedownTable


@dataclass(frozen=True)
class SeenFile:
    """File of a source that shows an image.

    Attributes:
        stamp: changes with the bytes; None if the source has no stamps.
        caption_stamp: changes with the source's captions of the image.
        repeats: times per epoch, if the source gives a number.
        captions: captions from the file; None keeps the recorded captions.
        mask: picture that selects the parts of the image used in training.
    """

    path: str
    sha256: str
    byte_size: int
    stamp: str | None = None
    caption_stamp: str | None = None
    repeats: int | None = None
    source: str | None = None
    licence: str | None = None
    captions: tuple[Caption, ...] | None = None
    mask: Mask | None = None


@dataclass(frozen=True)
class RecordedChanges:
    """SHA-256 of images that a batch of files concerned.

    Attributes:
        new: images that joined the dataset.
        recaptioned: members of the dataset with another caption, licence or mask than before.
        purged: images that were taken down, of which nothing was recorded. Their bytes must not stay.
    """

    new: frozenset[str] = frozenset()
    recaptioned: frozenset[str] = frozenset()
    purged: frozenset[str] = frozenset()


def register_source(session: Session, dataset_id: int, key: str, name: str) -> int:
    """Return the id of the dataset's source with this key; insert the source if it is new."""
    insert_or_ignore(session, SourceTable, [{"dataset_id": dataset_id, "key": key, "name": name}])
    source_id = find_source(session, dataset_id, key)
    assert source_id is not None
    return source_id


def find_source(session: Session, dataset_id: int, key: str) -> int | None:
    """Return the id of the dataset's source with this key; None if the source is not recorded."""
    of_dataset = (SourceTable.dataset_id == dataset_id) & (SourceTable.key == key)
    return session.scalars(select(SourceTable.id).where(of_dataset)).one_or_none()


def recorded_files(session: Session, source_id: int, paths: Sequence[str]) -> dict[str, SeenFile]:
    """Read the recorded files of a source, by path; paths that are not recorded are omitted."""
    files: dict[str, SeenFile] = {}
    for chunk in chunks(paths):
        statement = (
            select(
                FileTable.path,
                ImageTable.sha256,
                FileTable.byte_size,
                FileTable.stamp,
                FileTable.caption_stamp,
                FileTable.repeats,
            )
            .join(MemberTable, MemberTable.id == FileTable.member_id)
            .join(ImageTable, ImageTable.id == MemberTable.image_id)
            .where(FileTable.source_id == source_id, FileTable.path.in_(chunk))
        )
        files.update((row[0], SeenFile(*row)) for row in session.execute(statement))
    return files


def record_files(session: Session, dataset_id: int, source_id: int, files: Sequence[SeenFile]) -> RecordedChanges:
    """Write images, members, files, captions, masks and licences, within the caller's transaction.

    An image that left the dataset with its source returns. An image that a person removed stays removed. Files of a
    purged image are left out, because a takedown may come between the reading of a file and its recording.
    """
    purged = _purged(session, list({file.sha256 for file in files}))
    files = [file for file in files if file.sha256 not in purged]
    shas = list(dict.fromkeys(file.sha256 for file in files))
    first_files = {file.sha256: file for file in reversed(files)}  # of two files with the same bytes, the first counts
    new_images = set(shas) - image_ids(session, shas).keys()
    now = utc_now()
    insert_or_ignore(
        session,
        ImageTable,
        [
            {"sha256": sha256, "byte_size": first_files[sha256].byte_size, "collected_at": now}
            for sha256 in shas
            if sha256 in new_images
        ],
    )
    new = _join(session, dataset_id, first_files, shas)
    ids = member_ids(session, dataset_id, shas)
    licence_updates = _licence_updates(
        session, source_id, ids, [file for file in files if file.licence and file.sha256 not in new]
    )
    rows = [
        {
            "source_id": source_id,
            "path": file.path,
            "member_id": ids[file.sha256],
            "byte_size": file.byte_size,
            "stamp": file.stamp,
            "caption_stamp": file.caption_stamp,
            "repeats": file.repeats,
        }
        for file in files
    ]
    insert_or_update(session, FileTable, rows, keys=("source_id", "path"))
    file_ids = _file_ids(session, source_id, [file.path for file in files])
    captioned = {file_ids[file.path]: file for file in files if file.captions is not None}
    changed = _replace_file_captions(session, source_id, captioned, ids)
    changed |= _replace_masks(session, files, file_ids)
    _update_licences(session, ids, licence_updates)
    changed |= {file.sha256 for file in licence_updates}
    reset_rules(session, [ids[sha256] for sha256 in changed - new])
    return RecordedChanges(new, frozenset(changed - new), purged)


def _purged(session: Session, shas: Sequence[str]) -> frozenset[str]:
    statement = select(ImageTable.sha256).join(TakedownTable, TakedownTable.image_id == ImageTable.id)
    return frozenset(
        sha256 for chunk in chunks(shas) for sha256 in session.scalars(statement.where(ImageTable.sha256.in_(chunk)))
    )


def _join(
    session: Session, dataset_id: int, first_files: Mapping[str, SeenFile], shas: Sequence[str]
) -> frozenset[str]:
    """Make the images members of the dataset, in their order; return the SHA-256 of those that joined."""
    image_ids_by_sha = image_ids(session, shas)
    known, returning = set(), []
    for chunk in chunks(shas):
        statement = select(ImageTable.sha256, MemberTable.id, MemberTable.removed_at, MemberTable.removed_by)
        statement = statement.join(ImageTable, ImageTable.id == MemberTable.image_id)
        of_images = (MemberTable.dataset_id == dataset_id) & ImageTable.sha256.in_(chunk)
        for sha256, member_id, removed_at, removed_by in session.execute(statement.where(of_images)):
            if removed_at is not None and removed_by is None:
                returning.append(member_id)
            else:
                known.add(sha256)
    for chunk in chunks(returning):
        returned = {"removed_at": None, "rules": None, "added_at": utc_now()}
        session.execute(update(MemberTable).where(MemberTable.id.in_(chunk)).values(returned))
    now = utc_now()
    rows = [
        {
            "dataset_id": dataset_id,
            "image_id": image_ids_by_sha[sha256],
            "source": first_files[sha256].source,
            "licence": first_files[sha256].licence,
            "added_at": now,
        }
        for sha256 in shas
        if sha256 not in known
    ]
    insert_or_ignore(session, MemberTable, rows)
    return frozenset(shas) - known


def leave_source(session: Session, source_id: int, is_listed: Callable[[str], bool]) -> int:
    """Delete the files that the source has no longer; remove images without another file from the dataset.

    Images that a person added to the dataset from another one stay.

    Args:
        is_listed: tells by its path whether the source still has a file.

    Returns:
        The number of images that left.
    """
    files = select(FileTable.id, FileTable.path, FileTable.member_id).where(FileTable.source_id == source_id)
    gone = {file_id: member_id for file_id, path, member_id in session.execute(files) if not is_listed(path)}
    for chunk in chunks(list(gone)):
        for table in (CaptionTable, MaskTable):
            session.execute(delete(table).where(table.file_id.in_(chunk)))
        session.execute(delete(FileTable).where(FileTable.id.in_(chunk)))
    left = 0
    for chunk in chunks(sorted(set(gone.values()))):
        reset_rules(session, chunk)
        leaving = (
            MemberTable.id.in_(chunk)
            & MemberTable.id.not_in(select(FileTable.member_id).where(FileTable.member_id.in_(chunk)))
            & MemberTable.added_from.is_(None)
            & MemberTable.removed_at.is_(None)
        )
        leaving_ids = session.scalars(select(MemberTable.id).where(leaving)).all()
        remove_members(session, leaving_ids, None)
        left += len(leaving_ids)
    return left


def remove_members(session: Session, ids: Sequence[int], who: str | None) -> None:
    """Remove members (at most a chunk) from their dataset; None as `who` means that their source has them no longer.

    The next cleaning decides their copies again. A purged image keeps its verdict.
    """
    values = {"removed_at": utc_now(), "removed_by": who, "rules": None}
    session.execute(update(MemberTable).where(MemberTable.id.in_(ids)).values(values))
    undecided = {"verdict": None, "rejected_by": None, "reason": None, "copy_of_id": None}
    taken_down = select(TakedownTable.image_id)
    session.execute(
        update(MemberTable).where(MemberTable.id.in_(ids), MemberTable.image_id.not_in(taken_down)).values(undecided)
    )


def _replace_masks(session: Session, files: Sequence[SeenFile], file_ids: Mapping[str, int]) -> set[str]:
    """Replace the masks of the files; return the SHA-256 of images with another mask than before."""
    by_id = {file_ids[file.path]: file for file in files}
    changed = set()
    for chunk in chunks(list(by_id)):
        changed |= replace_masks(session, {file_id: by_id[file_id].mask for file_id in chunk})
    return {by_id[file_id].sha256 for file_id in changed}


def _replace_file_captions(
    session: Session, source_id: int, files: Mapping[int, SeenFile], ids: Mapping[str, int]
) -> set[str]:
    """Replace the captions of the files, given by file id; return the SHA-256 of members with changed captions."""
    recorded = recorded_captions(session, list(files))
    changed = {}
    for file_id, file in files.items():
        before = recorded.get((ids[file.sha256], file_id), [])
        if before != [(caption.text, caption.origin) for caption in file.captions or ()]:
            changed[file_id] = file
    for chunk in chunks(list(changed)):
        # Delete captions of the image that the file shows now. An image that it showed before keeps its captions.
        of_members = CaptionTable.member_id.in_([ids[changed[file_id].sha256] for file_id in chunk])
        session.execute(delete(CaptionTable).where(of_members, CaptionTable.file_id.in_(chunk)))
    rows = [
        caption_row(ids[file.sha256], source_id, file_id, position, caption)
        for file_id, file in changed.items()
        for position, caption in enumerate(file.captions or ())
    ]
    insert_or_ignore(session, CaptionTable, rows)
    return {file.sha256 for file in changed.values()}


def _file_ids(session: Session, source_id: int, paths: Sequence[str]) -> dict[str, int]:
    ids: dict[str, int] = {}
    for chunk in chunks(paths):
        statement = select(FileTable.path, FileTable.id).where(
            FileTable.source_id == source_id, FileTable.path.in_(chunk)
        )
        ids.update((path, file_id) for path, file_id in session.execute(statement))
    return ids


def _licence_updates(
    session: Session, source_id: int, ids: Mapping[str, int], files: Sequence[SeenFile]
) -> list[SeenFile]:
    """Select files that change a licence: none is recorded, or the file was recorded for the same image before."""
    recorded: dict[int, str | None] = {}
    for chunk in chunks([ids[file.sha256] for file in files]):
        statement = select(MemberTable.id, MemberTable.licence).where(MemberTable.id.in_(chunk))
        recorded.update((member_id, licence) for member_id, licence in session.execute(statement))
    differing = [file for file in files if file.licence != recorded[ids[file.sha256]]]
    previous = recorded_files(session, source_id, [file.path for file in differing])
    return [
        file
        for file in differing
        if recorded[ids[file.sha256]] is None or (file.path in previous and previous[file.path].sha256 == file.sha256)
    ]


def _update_licences(session: Session, ids: Mapping[str, int], files: Sequence[SeenFile]) -> None:
    for file in files:
        values = {"licence": file.licence} | ({"source": file.source} if file.source else {})
        session.execute(update(MemberTable).where(MemberTable.id == ids[file.sha256]).values(values))
