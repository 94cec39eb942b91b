"""Bytes of the image store: images, masks and drawn images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from sdlora.core.progress import OnProgress
from sdlora.data.threads import in_order
from sdlora.integrity.damage import Damage, Problem
from sdlora.store.image_store import ImageStore
from sdlora.store.overrides import tombstones
from sdlora.store.tables.datasets import FileTable, MaskTable, MemberTable, SourceTable
from sdlora.store.tables.images import ImageTable
from sdlora.store.tables.ratings import GenerationTable

_READERS = 8
_ROWS_PER_QUERY = 10_000


@dataclass(frozen=True)
class _Blob:
    kind: str
    sha256: str


def verify_images(store: ImageStore, on_progress: OnProgress) -> list[Damage]:
    """Read the bytes of every image, mask and drawn image, and compare them with their digests.

    Bytes of purged images are gone on purpose. Bytes have no other copy in the state folder, so nothing is repaired.

    Args:
        on_progress: called with "read images".

    Raises:
        StorageError: the database or the store of bytes cannot be reached.
    """
    with store.read() as session:
        tables = (ImageTable, MaskTable, GenerationTable)
        total = sum(session.scalars(select(func.count()).select_from(table)).one() for table in tables)
    damages: list[Damage] = []
    done = 0
    for done, (blob, problem) in enumerate(in_order(_blobs(store), lambda blob: _read(store, blob), _READERS), start=1):
        if problem is not None:
            damages.append(_damage(store, blob, problem))
        on_progress("read images", min(done, total), total)
    on_progress("read images", done, done)  # several files may share a mask
    return damages


def _blobs(store: ImageStore) -> Iterator[_Blob]:
    with store.read() as session:
        purged = tombstones(session)
    for sha256 in _digests(store, ImageTable.id, ImageTable.sha256):
        if sha256 not in purged:
            yield _Blob("image", sha256)
    for kind, digests in (
        ("mask", _digests(store, MaskTable.file_id, MaskTable.sha256)),
        ("drawn image", _digests(store, GenerationTable.id, GenerationTable.sha256)),
    ):
        for sha256 in set(digests):
            if sha256 and sha256 not in purged:
                yield _Blob(kind, sha256)


def _digests(store: ImageStore, key: Any, digest: Any) -> Iterator[str]:
    """Read the digests of a table in pages, so that no transaction stays open while the bytes are read."""
    last = -1
    while True:
        with store.read() as session:
            page = session.execute(select(key, digest).where(key > last).order_by(key).limit(_ROWS_PER_QUERY)).all()
        if not page:
            return
        yield from (sha256 for _, sha256 in page)
        last = page[-1][0]


def _read(store: ImageStore, blob: _Blob) -> tuple[_Blob, Problem | None]:
    return blob, store.blobs.problem(blob.sha256)


def _damage(store: ImageStore, blob: _Blob, problem: Problem) -> Damage:
    where = store.blobs.address(blob.sha256)
    remedy = _origin(store, blob)
    if problem == "damaged":
        remedy = f"Delete {where}. {remedy}"
    return Damage(blob.kind, f"{blob.kind} {blob.sha256[:12]}", where, problem, remedy)


def _origin(store: ImageStore, blob: _Blob) -> str:
    """Say where the bytes can be had again."""
    with store.read() as session:
        if blob.kind == "drawn image":
            drawn = session.execute(
                select(GenerationTable.model_version, GenerationTable.prompt, GenerationTable.seed).where(
                    GenerationTable.sha256 == blob.sha256
                )
            ).first()
            assert drawn is not None
            return f"Draw it again with {drawn.model_version}, seed {drawn.seed}: {drawn.prompt!r}."
        files = select(SourceTable.name, FileTable.path).join(FileTable, FileTable.source_id == SourceTable.id)
        if blob.kind == "mask":
            files = select(SourceTable.name, MaskTable.path).join(FileTable, FileTable.source_id == SourceTable.id)
            files = files.join(MaskTable, MaskTable.file_id == FileTable.id).where(MaskTable.sha256 == blob.sha256)
        else:
            files = files.join(MemberTable, MemberTable.id == FileTable.member_id)
            files = files.join(ImageTable, ImageTable.id == MemberTable.image_id)
            files = files.where(ImageTable.sha256 == blob.sha256)
        origins = [f"{path} of {name}" for name, path in session.execute(files.limit(3))]
    if not origins:
        return "No dataset has a source of it. Restore the folder from a backup."
    return f"Collect its source again: {', or '.join(origins)}."
