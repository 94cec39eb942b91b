"""Snapshots: frozen lists of the accepted images for training, identified by a digest of their rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import cast

from sqlalchemy import bindparam, delete, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from sdlora.core.errors import DataError
from sdlora.core.refs import SnapshotRef
from sdlora.data.checks.base import Ruling, parameters_digest
from sdlora.data.config import DataConfig
from sdlora.data.decoding.decode import background_of
from sdlora.data.duplicates.fingerprint import VERSION
from sdlora.data.duplicates.pairs import pairs_below
from sdlora.data.split import LEAK, Member, Sides, assign_sides
from sdlora.data.verdicts import count_undecided, record_rulings, record_verdicts, rules_digest, verdict_of
from sdlora.data.weights import image_weights
from sdlora.store.image_store import ImageStore
from sdlora.store.intake import chunks, image_ids, insert_or_ignore
from sdlora.store.masks import masks_of
from sdlora.store.queries import captions_of, count_images
from sdlora.store.records import Split
from sdlora.store.tables import ImageTable, SnapshotImageTable, SnapshotTable

_CANDIDATES = or_(ImageTable.verdict == "accepted", ImageTable.rejected_by == LEAK)


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

    @property
    def ref(self) -> SnapshotRef:
        """Reference to this snapshot."""
        return SnapshotRef(
            digest=self.digest,
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


def make_snapshot(store: ImageStore, config: DataConfig) -> Snapshot:
    """Freeze the accepted images. Unchanged images, captions and weights give the existing snapshot.

    An image keeps the side of the split from its first snapshot, and gives its side to a copy that replaces it.
    Look-alikes (`data.suspect_difference`) are never on
    both sides: the check "split_leak" rejects an image that would break this rule.

    Raises:
        DataError: an image has no verdict under these settings, or too few are accepted. Nothing is recorded then.
    """
    with store.write() as session:
        undecided_count = count_undecided(session, rules_digest(config))
        if undecided_count:
            raise DataError(
                f"{undecided_count} images have no verdict under these settings yet. Run clean() with them first."
            )
        _take_over_sides(session)
        members = _members(session)
        sides = assign_sides(members, _look_alikes(session, config), config)
        _record_sides(session, members, sides, config)
        captions = captions_of(session, list(sides.splits))
        shas = {member.image_id: member.sha256 for member in members}
        backgrounds = _backgrounds(session)
        weights = image_weights(session, config.weight_by)
        masks = {image_id: mask.sha256 for image_id, mask in masks_of(session).items() if mask.problem is None}
        by_id = {
            image_id: SnapshotRow(
                sha256=shas[image_id],
                captions=captions.get(image_id) or ("",),
                split=side,
                background=backgrounds.get(image_id, ""),
                weight=weights.get(image_id, 1.0) if side == "train" else 1.0,
                mask=masks.get(image_id) or "" if side == "train" else "",
            )
            for image_id, side in sides.splits.items()
        }
        rows = tuple(sorted(by_id.values(), key=lambda row: row.sha256))
        snapshot = Snapshot(snapshot_digest(rows), rows)
        _require_enough(session, snapshot, config)
        _record_snapshot(session, snapshot, by_id)
    return snapshot


def load_snapshot(store: ImageStore, digest: str) -> Snapshot:
    """Load a snapshot by its digest, or by the first digits.

    Raises:
        DataError: no snapshot matches, several match, or the rows do not have this digest.
    """
    with store.read() as session:
        has_prefix = SnapshotTable.digest.startswith(digest, autoescape=True)
        matches = session.scalars(select(SnapshotTable).where(has_prefix).limit(3)).all()
        if len(matches) != 1 or not digest:
            names = ", ".join(match.digest[:16] for match in matches) or "none"
            raise DataError(f"Snapshot {digest!r}: expected the first digits of one snapshot's digest, found {names}.")
        return _open_snapshot(session, matches[0])


def latest_snapshot(store: ImageStore) -> Snapshot | None:
    """Load the newest snapshot, or return None if there is none.

    Raises:
        DataError: the rows do not have the recorded digest.
    """
    with store.read() as session:
        newest = session.scalars(select(SnapshotTable).order_by(SnapshotTable.id.desc()).limit(1)).first()
        return _open_snapshot(session, newest) if newest else None


def restore_snapshot(store: ImageStore, digest: str, rows: Sequence[SnapshotRow]) -> None:
    """Replace the damaged rows of a recorded snapshot.

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
        _record_snapshot(session, Snapshot(digest, tuple(rows)), {ids[row.sha256]: row for row in rows})


def _members(session: Session) -> list[Member]:
    """Return accepted images and split leaks. A leak may fit on a side now."""
    rows = session.execute(select(ImageTable.id, ImageTable.sha256, ImageTable.split).where(_CANDIDATES))
    return [Member(row.id, row.sha256, cast("Split | None", row.split)) for row in rows]


def _take_over_sides(session: Session) -> None:
    """Give an image that replaces a copy the side of the copy, because a model may have learnt from the copy.

    Of copies on both sides, those in training count.
    """
    copies = aliased(ImageTable)
    has_side = copies.copy_of_id.is_not(None) & copies.split.is_not(None)
    side = (
        select(func.max(copies.split)).where(copies.copy_of_id == ImageTable.id).scalar_subquery()
    )  # train > held_out
    replacing = ImageTable.id.in_(select(copies.copy_of_id).where(has_side))
    session.execute(update(ImageTable).where(ImageTable.split.is_(None), replacing).values(split=side))


def _backgrounds(session: Session) -> dict[int, str]:
    """Return the colour behind transparent parts by image id, where the colour is not white."""
    rows = session.execute(select(ImageTable.id, ImageTable.decoded_as).where(ImageTable.decoded_as.contains(" ")))
    return {image_id: background_of(decoded_as) for image_id, decoded_as in rows}


def _look_alikes(session: Session, config: DataConfig) -> list[tuple[int, int]]:
    """Return pairs of ids of candidates that differ by less than `suspect_difference`."""
    pairs = pairs_below(session, config.suspect_difference)
    statement = select(ImageTable.fingerprint_id, ImageTable.id).where(_CANDIDATES)
    images_by_fingerprint: dict[int, list[int]] = {}
    for chunk in chunks(sorted({fingerprint_id for *pair, _ in pairs for fingerprint_id in pair})):
        for fingerprint_id, image_id in session.execute(statement.where(ImageTable.fingerprint_id.in_(chunk))):
            images_by_fingerprint.setdefault(fingerprint_id, []).append(image_id)
    return [
        image_ids
        for first_id, second_id, _ in pairs
        for image_ids in product(images_by_fingerprint.get(first_id, ()), images_by_fingerprint.get(second_id, ()))
    ]


def _record_sides(session: Session, members: Sequence[Member], sides: Sides, config: DataConfig) -> None:
    """Record new sides, and the rulings and verdicts of current and earlier split leaks."""
    new_sides = [
        {"image": member.image_id, "side": sides.splits[member.image_id]}
        for member in members
        if member.split is None and member.image_id in sides.splits
    ]
    if new_sides:
        statement = update(ImageTable).where(ImageTable.id == bindparam("image")).values(split=bindparam("side"))
        session.connection().execute(statement, new_sides)
    rejected_before = select(ImageTable.id).where(ImageTable.rejected_by == LEAK)
    parameters = parameters_digest({"suspect_difference": config.suspect_difference})
    changed_ids = set(session.scalars(rejected_before)) | set(sides.leaks)
    rulings = {
        image_id: [Ruling(LEAK, VERSION, parameters, None, _leak_reason(sides.leaks.get(image_id), config))]
        for image_id in changed_ids
    }
    record_rulings(session, rulings)
    record_verdicts(session, {image_id: verdict_of(image_rulings) for image_id, image_rulings in rulings.items()})


def _leak_reason(other: Member | None, config: DataConfig) -> str | None:
    if other is None:
        return None
    return (
        f"looks like image {other.sha256[:12]} on the other side of the train/held-out split; they differ by less than "
        f"suspect_difference = {config.suspect_difference:g}"
    )


def _require_enough(session: Session, snapshot: Snapshot, config: DataConfig) -> None:
    train, held_out = len(snapshot.train), len(snapshot.held_out)
    if train >= config.min_train_images and held_out >= config.min_held_out_images:
        return
    counts = count_images(session)
    reasons = ", ".join(f"{check} {count}" for check, count in counts.rejected_by.items()) or "none"
    raise DataError(
        f"Too few images for a snapshot: found {train} to train on and {held_out} held out, expected at least "
        f"data.min_train_images = {config.min_train_images} and data.min_held_out_images = "
        f"{config.min_held_out_images}. Of {counts.total} images {counts.accepted} are accepted; rejected: {reasons}. "
        "Collect more images, or loosen the settings behind those rejections."
    )


def _record_snapshot(session: Session, snapshot: Snapshot, by_id: Mapping[int, SnapshotRow]) -> None:
    record = session.scalars(select(SnapshotTable).where(SnapshotTable.digest == snapshot.digest)).one_or_none()
    if record is None:
        record = SnapshotTable(
            digest=snapshot.digest,
            parent_id=session.scalars(select(SnapshotTable.id).order_by(SnapshotTable.id.desc()).limit(1)).first(),
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
        for image_id, row in by_id.items()
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
