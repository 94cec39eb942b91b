"""Cleaning: a verdict with a reason for every image of a dataset.

An image is decoded once for each background, whatever number of datasets it is in. Later cleanings decide from its
recorded scores.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from sdlora.core.errors import DataError
from sdlora.core.progress import OnProgress
from sdlora.data.checks import RECORD_CHECKS
from sdlora.data.config import DataConfig
from sdlora.data.decide_images import decide_images
from sdlora.data.duplicates.search import SimilarPairs
from sdlora.data.image_models.unsafe_scores import score_unsafe
from sdlora.data.measuring.measure import ImageScores
from sdlora.data.measuring.workers import Measurer, ParallelMap, measure_all
from sdlora.data.recording import forget_decisions, record_measurements
from sdlora.data.verdicts import Ids, ImageState, image_states, needs_measuring, rules_digest, undecided
from sdlora.store.bulk import ROWS_PER_STATEMENT, chunks
from sdlora.store.dataset import Dataset
from sdlora.store.image_store import ImageStore
from sdlora.store.queries import count_images
from sdlora.store.records import Counts
from sdlora.store.tables.datasets import MemberTable
from sdlora.store.tables.images import ImageTable

_REJECTIONS_SHOWN = 20
_IMAGES_PER_BATCH = ROWS_PER_STATEMENT  # upper limit of images per transaction
_SECONDS_PER_BATCH = 1.0
"""Interval of recording. A killed run measures at most this much work again."""
_IMAGES_PER_WINDOW = 20_000  # only their digests and states are in memory


@dataclass(frozen=True)
class Rejection:
    """Rejected image: the name of the check and the reason in words."""

    sha256: str
    check: str
    reason: str


@dataclass(frozen=True)
class CleanReport:
    """Outcome of one cleaning.

    Attributes:
        decoded: number of images that were decoded.
        decided: number of images that had no verdict under these settings before.
        counts: all images of the dataset by verdict and check.
        rejected: the first 20 of the decided images that were rejected.
    """

    decoded: int
    decided: int
    counts: Counts
    rejected: tuple[Rejection, ...]


def clean(
    dataset: Dataset, config: DataConfig, on_progress: OnProgress | None = None, measurer: Measurer = measure_all
) -> CleanReport:
    """Decide every image of the dataset that has no verdict under these settings. Nothing is deleted.

    Only images without recorded scores are decoded. Results are recorded in batches, so a killed run keeps its finished
    batches. The next run reaches the same verdicts as an uninterrupted one.

    Args:
        measurer: measures the images, on this machine or on a cluster.

    Raises:
        DataError: the bytes of an image are missing or damaged.
        StorageError: the disk is full or not writable.
    """
    rules, store = rules_digest(config), dataset.store
    pending = _pending(dataset, rules, config)
    decoded = _measure(store, pending, config, measurer, on_progress)
    score_unsafe(store, pending.tolist(), config, on_progress)
    for done, chunk in _id_chunks(pending):
        with store.write() as session:
            decide_images(session, dataset.id, chunk, rules, config)
        if on_progress:
            on_progress("decide", done, len(pending))
    with store.read() as session:
        counts = count_images(session, dataset.id)
        return CleanReport(decoded, len(pending), counts, _first_rejections(session, pending))


def _pending(dataset: Dataset, rules: str, config: DataConfig) -> Ids:
    """Return the ids of undecided members, together with the members that their records affect."""
    store = dataset.store
    with store.read() as session:
        pending = undecided(session, dataset.id, rules)
    affecting = [check.affects for check in RECORD_CHECKS if check.affects]
    if not affecting or not len(pending):
        return pending
    with store.write() as session:
        for _, chunk in _id_chunks(pending):
            for affects in affecting:
                for affected_ids in chunks(sorted(affects(session, dataset.id, chunk, config))):
                    forget_decisions(session, affected_ids)
        return undecided(session, dataset.id, rules)


def _measure(
    store: ImageStore, pending: Ids, config: DataConfig, measurer: Measurer, on_progress: OnProgress | None
) -> int:
    """Measure the pending members that lack a score; return their number."""
    measured = 0
    with ParallelMap() as parallel_map:
        pairs = SimilarPairs(parallel_map)
        for start in range(0, len(pending), _IMAGES_PER_WINDOW):
            unmeasured = _unmeasured(store, pending[start : start + _IMAGES_PER_WINDOW], config)
            for done in _measure_window(store, unmeasured, pairs, config, measurer):
                if on_progress:
                    # Images with recorded scores count as done once the rest of their window is measured.
                    end = min(start + _IMAGES_PER_WINDOW, len(pending)) if done == len(unmeasured) else start + done
                    on_progress("check images", end, len(pending))
            measured += len(unmeasured)
    return measured


def _measure_window(
    store: ImageStore, unmeasured: Mapping[str, ImageState], pairs: SimilarPairs, config: DataConfig, measurer: Measurer
) -> Iterator[int]:
    """Measure and record these images; yield the number of images done so far."""
    sizes = {sha256: state.byte_size for sha256, state in unmeasured.items()}
    done = 0
    for batch in _batches(measurer(store.blobs, sizes, config.max_pixels, config.background)):
        fingerprints_by_pixels = {
            image.pixels_sha256: image.fingerprint for image in batch if image.pixels_sha256 and image.fingerprint
        }
        scores_by_id = {unmeasured[image.sha256].image_id: image for image in batch}
        with store.write() as session:
            fingerprint_ids = pairs.add(session, fingerprints_by_pixels)
            record_measurements(session, scores_by_id, fingerprint_ids)
        done += len(batch)
        yield done


def _unmeasured(store: ImageStore, ids: Ids, config: DataConfig) -> dict[str, ImageState]:
    """Return the images that need measuring, by SHA-256."""
    unmeasured: dict[str, ImageState] = {}
    with store.read() as session:
        for _, chunk in _id_chunks(ids):
            states = image_states(session, chunk, config.background)
            unmeasured.update((state.sha256, state) for state in states if needs_measuring(state, config))
    return unmeasured


def _id_chunks(ids: Ids) -> Iterator[tuple[int, list[int]]]:
    """Yield member ids in chunks, each with the number of ids up to its end."""
    for start in range(0, len(ids), ROWS_PER_STATEMENT):
        chunk: list[int] = ids[start : start + ROWS_PER_STATEMENT].tolist()
        yield start + len(chunk), chunk


def _batches(images: Iterator[ImageScores]) -> Iterator[list[ImageScores]]:
    batch: list[ImageScores] = []
    started = time.monotonic()
    try:
        for image in images:
            batch.append(image)
            if len(batch) == _IMAGES_PER_BATCH or time.monotonic() - started > _SECONDS_PER_BATCH:
                yield batch
                batch, started = [], time.monotonic()
    except DataError:  # an image's bytes are missing; images measured before it are still recorded
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _first_rejections(session: Session, ids: Ids) -> tuple[Rejection, ...]:
    rejections: list[Rejection] = []
    for _, chunk in _id_chunks(ids):
        statement = (
            select(ImageTable.sha256, MemberTable.rejected_by, MemberTable.reason)
            .join(ImageTable, ImageTable.id == MemberTable.image_id)
            .order_by(MemberTable.id)
        )
        rejected = MemberTable.id.in_(chunk) & (MemberTable.verdict == "rejected")
        rejections += [
            Rejection(*row)
            for row in session.execute(statement.where(rejected).limit(_REJECTIONS_SHOWN - len(rejections)))
        ]
        if len(rejections) == _REJECTIONS_SHOWN:
            break
    return tuple(rejections)
