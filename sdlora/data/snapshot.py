"""Snapshots: frozen lists of a dataset's accepted images for training, identified by a digest of their rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from sdlora.core.errors import DataError
from sdlora.core.refs import SnapshotRef
from sdlora.data.config import DataConfig
from sdlora.data.sides import candidates, look_alikes, record_sides, take_over_sides
from sdlora.data.split import assign_sides
from sdlora.data.verdicts import count_undecided, rules_digest
from sdlora.data.weights import image_weights
from sdlora.store.bulk import insert_or_ignore
from sdlora.store.dataset import Dataset
from sdlora.store.ids import image_ids
from sdlora.store.image_store import ImageStore
from sdlora.store.lineage import find_snapshot
from sdlora.store.masks import usable_masks
from sdlora.store.queries import captions_of, count_images
from sdlora.store.records import Split
from sdlora.store.tables.datasets import MemberTable
from sdlora.store.tables.images import DecodingTable, ImageTable
from sdlora.store.tables.versions import SnapshotImageTable, SnapshotTable


@dataclass(frozen=True)
class SnapshotRow:
    """Image of a snapshot. `captions` is never empty: an image without captions has one empty caption.

    Attributes:
        background: colour behind transparent parts; empty for white and for opaque images.
        weight: relative frequency of the image in an epoch; held-out images have 1.
        mask: SHA-256 of the mask that weights the pixels of a training image; empty without one.
    """

    sha256: str
    captions: tuple[str, ...]
    split: Split
    background: str = ""
    weight: float = 1.0
    mask: str = ""


@dataclass(frozen=True)
class Snapshot:
    """Frozen list of images. Equal rows give an equal digest on any machine."""

    digest: str
    rows: tuple[SnapshotRow, ...]

    @cached_property
    def train(self) -> tuple[SnapshotRow, ...]:
        """Rows of the training images."""
        return tuple(row for row in self.rows if row.split == "train")

    @cached_property
    def training_digest(self) -> str:
        """Digest of the training rows alone. Images that are only held out leave it as it was."""
        return snapshot_digest(self.train)

    def ref(self, dataset: str) -> SnapshotRef:
        """Return the reference to this snapshot of the dataset with this name."""
        return SnapshotRef(
            digest=self.digest,
            dataset=dataset,
            training_digest=self.training_digest,
            train_count=len(self.train),
            held_out_count=len(self.held_out),
        )

    @cached_property
    def held_out(self) -> tuple[SnapshotRow, ...]:
        """Rows of the held-out images."""
        return tuple(row for row in self.rows if row.split == "held_out")


def snapshot_digest(rows: Iterable[SnapshotRow]) -> str:
    """SHA-256 over one JSON line [sha256, captions, split(, background)(, {...})] per row, sorted by SHA-256.

    The optional object holds `weight` and `mask`. Few rows have it.
    """
    digest = hashlib.sha256()
    for row in sorted(rows, key=lambda row: row.sha256):
        rare: dict[str, object] = {"weight": row.weight} if row.weight != 1 else {}
        rare |= {"mask": row.mask} if row.mask else {}
        values: list[object] = [row.sha256, row.captions, row.split, *([row.background] if row.background else [])]
        values += [rare] if rare else []
        line = json.dumps(values, ensure_ascii=True, separators=(",", ":"))
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def make_snapshot(dataset: Dataset, config: DataConfig) -> Snapshot:
    """Freeze the accepted images of a dataset. Unchanged images, captions and weights give the existing snapshot.

    An image keeps the side of the split from its first snapshot, and gives its side to a copy that replaces it.
    Look-alikes (`data.suspect_difference`) are never on both sides: the check "split_leak" rejects an image that would
    break this rule.

    Raises:
        DataError: an image has no verdict under these settings, or too few are accepted. Nothing is recorded then.
    """
    with dataset.store.write() as session:
        undecided_count = count_undecided(session, dataset.id, rules_digest(config))
        if undecided_count:
            raise DataError(
                f"{undecided_count} images have no verdict under these settings in dataset {dataset.name!r} yet. Run "
                "clean() with them first."
            )
        take_over_sides(session, dataset.id)
        members = candidates(session, dataset.id)
        sides = assign_sides(members, look_alikes(session, dataset.id, config), config)
        record_sides(session, dataset.id, members, sides, config)
        captions = captions_of(session, list(sides.splits))
        shas = {member.member_id: member.sha256 for member in members}
        backgrounds = _backgrounds(session, dataset.id)
        weights = image_weights(session, dataset.id, config.weight_by)
        masks = usable_masks(session, dataset.id)
        rows = [
            SnapshotRow(
                sha256=shas[member_id],
                captions=captions.get(member_id) or ("",),
                split=side,
                background=backgrounds.get(member_id, ""),
                weight=weights.get(member_id, 1.0) if side == "train" else 1.0,
                mask=masks.get(member_id, "") if side == "train" else "",
            )
            for member_id, side in sides.splits.items()
        ]
        snapshot = Snapshot(snapshot_digest(rows), tuple(sorted(rows, key=lambda row: row.sha256)))
        _require_enough(session, dataset, snapshot, config)
        ids = image_ids(session, [row.sha256 for row in rows])
        _record_snapshot(session, dataset.id, snapshot, {ids[row.sha256]: row for row in rows})
    return snapshot


def load_snapshot(store: ImageStore, digest: str) -> Snapshot:
    """Load a snapshot of any dataset by its digest, or by the first digits.

    Raises:
        DataError: no snapshot matches, several match, or the rows do not have this digest.
    """
    with store.read() as session:
        full_digest = find_snapshot(session, digest).digest
        # Equal snapshots of several datasets have equal rows; of these, an intact one counts.
        equal = session.scalars(
            select(SnapshotTable).where(SnapshotTable.digest == full_digest).order_by(SnapshotTable.id)
        ).all()
        intact = next((rows for record in equal if (rows := _intact_rows(session, record)) is not None), None)
        return Snapshot(full_digest, intact) if intact is not None else _open_snapshot(session, equal[0])


def latest_snapshot(dataset: Dataset) -> Snapshot | None:
    """Load the newest snapshot of a dataset, or return None if there is none.

    Raises:
        DataError: the rows do not have the recorded digest.
    """
    with dataset.store.read() as session:
        newest = _newest(dataset.id)
        record = session.scalars(select(SnapshotTable).where(SnapshotTable.id.in_(newest))).first()
        return _open_snapshot(session, record) if record else None


def restore_snapshot(store: ImageStore, digest: str, rows: Sequence[SnapshotRow]) -> None:
    """Replace the damaged rows of a recorded snapshot, in every dataset that has it.

    Raises:
        DataError: the rows do not have this digest, or an image is not in the database.
    """
    if snapshot_digest(rows) != digest:
        raise DataError(f"The list of images of snapshot {digest[:16]} does not have this digest.")
    with store.write() as session:
        ids = image_ids(session, [row.sha256 for row in rows])
        missing = [row.sha256[:12] for row in rows if row.sha256 not in ids]
        if missing:
            raise DataError(f"The image database lacks images of snapshot {digest[:16]}: {', '.join(missing[:3])}.")
        by_image = {ids[row.sha256]: row for row in rows}
        datasets = select(SnapshotTable.dataset_id).where(SnapshotTable.digest == digest)
        for dataset_id in session.scalars(datasets).all():
            _record_snapshot(session, dataset_id, Snapshot(digest, tuple(rows)), by_image)


def _newest(dataset_id: int) -> Select[tuple[int]]:
    statement = select(SnapshotTable.id).where(SnapshotTable.dataset_id == dataset_id)
    return statement.order_by(SnapshotTable.id.desc()).limit(1)


def _backgrounds(session: Session, dataset_id: int) -> dict[int, str]:
    """Return the colour behind transparent parts by member id, where the colour is not white."""
    statement = select(MemberTable.id, DecodingTable.background)
    statement = statement.join(DecodingTable, DecodingTable.id == MemberTable.decoding_id)
    is_coloured = DecodingTable.background.not_in(("", "white"))
    rows = session.execute(statement.where(MemberTable.dataset_id == dataset_id, is_coloured))
    return dict(rows.tuples().all())


def _require_enough(session: Session, dataset: Dataset, snapshot: Snapshot, config: DataConfig) -> None:
    train, held_out = len(snapshot.train), len(snapshot.held_out)
    if train >= config.min_train_images and held_out >= config.min_held_out_images:
        return
    counts = count_images(session, dataset.id)
    reasons = ", ".join(f"{check} {count}" for check, count in counts.rejected_by.items()) or "none"
    raise DataError(
        f"Too few images for a snapshot of dataset {dataset.name!r}: found {train} to train on and {held_out} held "
        f"out, expected at least data.min_train_images = {config.min_train_images} and data.min_held_out_images = "
        f"{config.min_held_out_images}. Of {counts.total} images {counts.accepted} are accepted; rejected: {reasons}. "
        "Collect more images, or loosen the settings behind those rejections."
    )


def _record_snapshot(
    session: Session, dataset_id: int, snapshot: Snapshot, by_image: Mapping[int, SnapshotRow]
) -> None:
    is_equal = (SnapshotTable.dataset_id == dataset_id) & (SnapshotTable.digest == snapshot.digest)
    record = session.scalars(select(SnapshotTable).where(is_equal)).one_or_none()
    if record is None:
        record = SnapshotTable(
            dataset_id=dataset_id,
            digest=snapshot.digest,
            parent_id=session.scalars(_newest(dataset_id)).first(),
            train_count=len(snapshot.train),
            held_out_count=len(snapshot.held_out),
        )
        session.add(record)
        session.flush()
    elif _intact_rows(session, record) is not None:
        return
    else:  # equal digests mean equal rows, so writing the rows again repairs the damage
        session.execute(delete(SnapshotImageTable).where(SnapshotImageTable.snapshot_id == record.id))
    images = [
        {
            "snapshot_id": record.id,
            "image_id": image_id,
            "split": row.split,
            "captions": list(row.captions),
            "background": row.background or None,
            "weight": row.weight if row.weight != 1 else None,
            "mask": row.mask or None,
        }
        for image_id, row in by_image.items()
    ]
    insert_or_ignore(session, SnapshotImageTable, images)


def _open_snapshot(session: Session, record: SnapshotTable) -> Snapshot:
    rows = _intact_rows(session, record)
    if rows is None:
        raise DataError(
            f"Snapshot {record.digest[:16]} is damaged: its rows in the image database do not have this digest. "
            "Restore a backup of the database, or continue without this snapshot: `sdlora run` writes a new one "
            "from the current images."
        )
    return Snapshot(record.digest, rows)


def _intact_rows(session: Session, record: SnapshotTable) -> tuple[SnapshotRow, ...] | None:
    """Return the rows of a snapshot, or None if they do not have the recorded digest."""
    try:
        rows = _rows_of(session, record.id)
    except (ValueError, TypeError):  # damaged captions: no JSON, or no list
        return None
    return rows if snapshot_digest(rows) == record.digest else None


def _rows_of(session: Session, snapshot_id: int) -> tuple[SnapshotRow, ...]:
    statement = (
        select(
            ImageTable.sha256,
            SnapshotImageTable.captions,
            SnapshotImageTable.split,
            SnapshotImageTable.background,
            SnapshotImageTable.weight,
            SnapshotImageTable.mask,
        )
        .join(ImageTable, ImageTable.id == SnapshotImageTable.image_id)
        .where(SnapshotImageTable.snapshot_id == snapshot_id)
        .order_by(ImageTable.sha256)
    )
    rows = session.execute(statement)
    return tuple(
        SnapshotRow(
            sha256=row.sha256,
            captions=tuple(row.captions),
            split=cast("Split", row.split),
            background=row.background or "",
            weight=row.weight or 1.0,
            mask=row.mask or "",
        )
        for row in rows
    )
