"""Facts about a dataset for the data page, read from one state of the image database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sdlora.core.errors import DataError
from sdlora.data.changes import SnapshotChanges, changes_since_snapshot, compare_snapshots
from sdlora.data.check_list import ListedCheck, list_checks
from sdlora.data.config import DataConfig
from sdlora.data.duplicates.groups import NEAR
from sdlora.data.snapshot import load_snapshot
from sdlora.store.dataset import Dataset
from sdlora.store.lineage import SnapshotRecord
from sdlora.store.overview import (
    ImageOverride,
    NearDuplicatePair,
    SourceFigures,
    caption_figures,
    licence_figures,
    list_overrides,
    near_duplicate_pairs,
    size_figures,
    source_figures,
)
from sdlora.store.records import Counts, ImageRecord

_IMAGES_PER_CHECK = 12
_MAX_PAIRS = 18
_MAX_NEW_IMAGES = 36
_MAX_RECAPTIONED = 12
_MAX_DECISIONS = 24


@dataclass(frozen=True)
class Recaptioned:
    """Image whose captions changed."""

    sha256: str
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True)
class DataFacts:
    """Facts about the images of a dataset: counts, verdicts, changes and distributions.

    Attributes:
        frozen: the snapshot of the page; None before the first one.
        since: the snapshot that `changes` starts from; None if all images are new.
        trouble: the reason why changes are unknown, such as a damaged snapshot; `changes` is then empty.
        rejected: examples by check, in the order of the checks.
        weights: number of training images by weight, in this snapshot or the newest one.
        new: the first added images; `changes` has all of them.
    """

    counts: Counts
    frozen: SnapshotRecord | None
    since: SnapshotRecord | None
    trouble: str | None
    changes: SnapshotChanges
    new: Sequence[ImageRecord]
    recaptioned: Sequence[Recaptioned]
    rejected: Mapping[str, Sequence[ImageRecord]]
    pairs: Sequence[NearDuplicatePair]
    files: Mapping[str, str]
    sizes: Mapping[tuple[int, int], int]
    caption_words: Mapping[int, int]
    sources: Sequence[SourceFigures]
    licences: Mapping[str, tuple[int, int]]
    decided: Sequence[ImageOverride]
    checks: Sequence[ListedCheck]
    weights: Mapping[float, int]


def gather_facts(dataset: Dataset, config: DataConfig, snapshot_digest: str | None = None) -> DataFacts:
    """Read the facts of the page.

    Args:
        config: settings of the data stage.
        snapshot_digest: a new snapshot, compared with its parent. If None, the changes are
            the differences of the next snapshot from the newest one.

    Raises:
        DataError: there is no such snapshot, or it is damaged.
    """
    store = dataset.store
    frozen = dataset.snapshot(snapshot_digest) if snapshot_digest else None
    now = load_snapshot(store, frozen.digest) if frozen else None
    if frozen:
        since = dataset.snapshot(frozen.parent) if frozen.parent else None
    else:
        since = next(iter(dataset.snapshots(1)), None)
    before, trouble = None, None
    try:
        before = load_snapshot(store, since.digest) if since else None
        changes = compare_snapshots(before, now) if now else changes_since_snapshot(dataset, config)
    except DataError as error:  # all other facts do not need the previous snapshot
        changes, trouble = SnapshotChanges((), (), ()), str(error)
    if now:
        captions = {row.sha256: row.captions for row in now.rows}
    else:
        captions = {sha256: dataset.image(sha256).captions for sha256 in changes.recaptioned[:_MAX_RECAPTIONED]}
    old = {row.sha256: row.captions for row in before.rows} if before else {}
    counts = dataset.counts()
    listed = list_checks(config)
    with store.read() as session:
        pairs = near_duplicate_pairs(session, dataset.id, NEAR, _MAX_PAIRS)
        named = {sha256 for pair in pairs for sha256 in (pair.kept, pair.left_out)}
        sizes, caption_words = size_figures(session, dataset.id), caption_figures(session, dataset.id)
        sources, licences = source_figures(session, dataset.id), licence_figures(session, dataset.id)
        decided = list_overrides(session, dataset.id, _MAX_DECISIONS)
    snapshot = now or before
    order = {check.name: position for position, check in enumerate(listed)}
    names = sorted(counts.rejected_by, key=lambda name: order.get(name, len(order)))
    return DataFacts(
        counts=counts,
        frozen=frozen,
        since=since,
        trouble=trouble,
        changes=changes,
        new=[dataset.image(sha256) for sha256 in changes.added[:_MAX_NEW_IMAGES]],
        recaptioned=[
            Recaptioned(sha256, old.get(sha256, ()), captions.get(sha256, ()))
            for sha256 in changes.recaptioned[:_MAX_RECAPTIONED]
        ],
        rejected={
            name: dataset.images("rejected", rejected_by=name, limit=_IMAGES_PER_CHECK)
            for name in names
            if name != NEAR
        },
        pairs=pairs,
        files={sha256: file_name(dataset.image(sha256)) for sha256 in named | {image.sha256 for image in decided}},
        sizes=sizes,
        caption_words=caption_words,
        sources=sources,
        licences=licences,
        decided=decided,
        checks=listed,
        weights=Counter(row.weight for row in snapshot.train) if snapshot else {},
    )


def file_name(record: ImageRecord) -> str:
    """Return the file name where the image was first seen, else the first digits of its digest."""
    return record.files[0].rpartition("/")[2] if record.files else record.sha256[:10]
