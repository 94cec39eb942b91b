"""Differences between two snapshots, or between a dataset's newest snapshot and its current images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import select

from sdlora.data.config import DataConfig
from sdlora.data.snapshot import Snapshot, SnapshotRow, latest_snapshot
from sdlora.data.weights import image_weights
from sdlora.store.dataset import Dataset
from sdlora.store.masks import usable_masks
from sdlora.store.queries import captions_of
from sdlora.store.tables.datasets import MemberTable
from sdlora.store.tables.images import ImageTable


@dataclass(frozen=True)
class SnapshotChanges:
    """Added, removed and changed images: sorted SHA-256s, by what changed (captions, weight, mask)."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    recaptioned: tuple[str, ...]
    reweighted: tuple[str, ...] = ()
    remasked: tuple[str, ...] = ()

    @property
    def any(self) -> bool:
        """True if any image changed."""
        return any((self.added, self.removed, self.recaptioned, self.reweighted, self.remasked))


def compare_snapshots(old: Snapshot | None, new: Snapshot) -> SnapshotChanges:
    """Compare two snapshots; without `old`, every image counts as added."""
    return _compare(_trained_as(old.rows if old else ()), _trained_as(new.rows))


def changes_since_snapshot(dataset: Dataset, config: DataConfig | None = None) -> SnapshotChanges:
    """Compare a dataset's newest snapshot with the one that would be made now. Images without a verdict do not count.

    Args:
        config: its `weight_by` sets the current weights; None means the default settings.
    """
    config = config or DataConfig()
    newest = latest_snapshot(dataset)
    with dataset.store.read() as session:
        statement = select(MemberTable.id, ImageTable.sha256).join(ImageTable, ImageTable.id == MemberTable.image_id)
        accepted = (MemberTable.dataset_id == dataset.id) & (MemberTable.verdict == "accepted")
        shas = {row.id: row.sha256 for row in session.execute(statement.where(accepted))}
        captions = captions_of(session, list(shas))
        weights = image_weights(session, dataset.id, config.weight_by)
        masks = usable_masks(session, dataset.id)
    before = _trained_as(newest.rows if newest else ())
    held_out = {row.sha256 for row in newest.held_out} if newest else set()
    today = {
        sha256: _TrainedAs(
            captions.get(member_id) or ("",),
            *((1.0, "") if sha256 in held_out else (weights.get(member_id, 1.0), masks.get(member_id, ""))),
        )
        for member_id, sha256 in shas.items()
    }
    return _compare(before, today)


class _TrainedAs(NamedTuple):
    """Training data of one image: every column of its snapshot row except the side of the split."""

    captions: tuple[str, ...]
    weight: float
    mask: str


def _trained_as(rows: Iterable[SnapshotRow]) -> dict[str, _TrainedAs]:
    """Return training data by SHA-256."""
    return {row.sha256: _TrainedAs(row.captions, row.weight, row.mask) for row in rows}


def _compare(old: Mapping[str, _TrainedAs], new: Mapping[str, _TrainedAs]) -> SnapshotChanges:
    both = old.keys() & new.keys()
    return SnapshotChanges(
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        recaptioned=tuple(sorted(sha256 for sha256 in both if old[sha256].captions != new[sha256].captions)),
        reweighted=tuple(sorted(sha256 for sha256 in both if old[sha256].weight != new[sha256].weight)),
        remasked=tuple(sorted(sha256 for sha256 in both if old[sha256].mask != new[sha256].mask)),
    )
