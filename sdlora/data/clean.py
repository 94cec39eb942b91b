"""Give every image a verdict with a reason. An image is decoded once; later rounds decide from its recorded scores."""

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
from sdlora.data.verdicts import (
    Ids,
    ImageState,
    forget_decisions,
    forget_scores,
    image_states,
    needs_measuring,
    record_measurements,
    rules_digest,
    undecided,
)
from sdlora.store.image_store import ImageStore
from sdlora.store.intake import CHUNK, chunks
from sdlora.store.queries import count_images
from sdlora.store.records import Counts
from sdlora.store.tables import ImageTable

_REJECTIONS_SHOWN = 20
_IMAGES_PER_BATCH = CHUNK  # recorded at once, at most
_SECONDS_PER_BATCH = 1.0
"""What is recorded at least so often is not measured again after a kill."""
_IMAGES_PER_WINDOW = 20_000  # by their digests


@dataclass(frozen=True)
class Rejection:
    """One image that a check turned down, by the check's name and in words."""

    sha256: str
    check: str
    reason: str


@dataclass(frozen=True)
class CleanReport:
    """What cleaning decided.

    Attributes:
        decoded: images that had to be looked at.
        decided: images that had no verdict under these settings before.
        counts: all images of the store by verdict and check.
        rejected: those of the decided images that were turned down (the first ones).
    """

    decoded: int
    decided: int
    counts: Counts
    rejected: tuple[Rejection, ...]


def clean(
    store: ImageStore, config: DataConfig, on_progress: OnProgress | None = None, measurer: Measurer = measure_all
) -> CleanReport:
    """Decide over every image that has no verdict under these settings. Nothing is deleted.

    Only images without recorded scores are decoded. Work is recorded in portions: a run that is killed keeps what it
    has measured and decided, and the next one ends where an undisturbed one would have.

    Args:
        measurer: who looks at the images: this machine, or a cluster.

    Raises:
        DataError: the bytes of an image are missing or damaged.
        StorageError: the disk is full or not writable.
    """
    rules = rules_digest(config)
    pending = _pending(store, rules, config)
    decoded = _measure(store, pending, config, measurer, on_progress)
    score_unsafe(store, pending.tolist(), config, on_progress)
    for done, chunk in _id_chunks(pending):
        with store.write() as session:
            decide_images(session, chunk, rules, config)
        if on_progress:
            on_progress("decide", done, len(pending))
    with store.read() as session:
        return CleanReport(decoded, len(pending), count_images(session), _first_rejections(session, pending))


def _pending(store: ImageStore, rules: str, config: DataConfig) -> Ids:
    """Ids of the images to be decided, with those whose records speak of one another."""
    with store.read() as session:
        pending = undecided(session, rules)
    affecting = [check.affects for check in RECORD_CHECKS if check.affects]
    if not affecting or not len(pending):
        return pending
    with store.write() as session:
        for _, chunk in _id_chunks(pending):
            for affects in affecting:
                for affected_ids in chunks(sorted(affects(session, chunk, config))):
                    forget_decisions(session, affected_ids)
        return undecided(session, rules)


def _measure(
    store: ImageStore, pending: Ids, config: DataConfig, measurer: Measurer, on_progress: OnProgress | None
) -> int:
    """Measure the pending images that lack a score; returns how many those were."""
    measured = 0
    with ParallelMap() as parallel_map:
        pairs = SimilarPairs(parallel_map)
        for start in range(0, len(pending), _IMAGES_PER_WINDOW):
            unmeasured = _unmeasured(store, pending[start : start + _IMAGES_PER_WINDOW], config)
            for done in _measure_window(store, unmeasured, pairs, config, measurer):
                if on_progress:
                    # Images that need no look count as done, once the others of their window are.
                    end = min(start + _IMAGES_PER_WINDOW, len(pending)) if done == len(unmeasured) else start + done
                    on_progress("check images", end, len(pending))
            measured += len(unmeasured)
    return measured


def _measure_window(
    store: ImageStore, unmeasured: Mapping[str, ImageState], pairs: SimilarPairs, config: DataConfig, measurer: Measurer
) -> Iterator[int]:
    """Measure these images and record what is found; yields how many that were so far."""
    sizes = {sha256: state.byte_size for sha256, state in unmeasured.items()}
    done = 0
    for batch in _batches(measurer(store.blobs, sizes, config.max_pixels, config.background)):
        fingerprints_by_pixels = {
            image.pixels_sha256: image.fingerprint for image in batch if image.pixels_sha256 and image.fingerprint
        }
        scores_by_id = {unmeasured[image.sha256].image_id: image for image in batch}
        with store.write() as session:
            fingerprint_ids = pairs.add(session, fingerprints_by_pixels)
            forget_scores(
                session, [unmeasured[image.sha256].image_id for image in batch if unmeasured[image.sha256].scores]
            )
            record_measurements(session, scores_by_id, fingerprint_ids, config)
        done += len(batch)
        yield done


def _unmeasured(store: ImageStore, ids: Ids, config: DataConfig) -> dict[str, ImageState]:
    """Those of the images that have to be looked at, by SHA-256."""
    unmeasured: dict[str, ImageState] = {}
    with store.read() as session:
        for _, chunk in _id_chunks(ids):
            lacking_scores = (state for state in image_states(session, chunk) if needs_measuring(state, config))
            unmeasured.update((state.sha256, state) for state in lacking_scores)
    return unmeasured


def _id_chunks(ids: Ids) -> Iterator[tuple[int, list[int]]]:
    """Image ids in chunks, each with the number of ids up to its end."""
    for start in range(0, len(ids), CHUNK):
        chunk: list[int] = ids[start : start + CHUNK].tolist()
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
    except DataError:  # of an image's bytes; what was measured before stays
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _first_rejections(session: Session, ids: Ids) -> tuple[Rejection, ...]:
    rejections: list[Rejection] = []
    for _, chunk in _id_chunks(ids):
        statement = select(ImageTable.sha256, ImageTable.rejected_by, ImageTable.reason).order_by(ImageTable.id)
        rejected = ImageTable.id.in_(chunk) & (ImageTable.verdict == "rejected")
        rejections += [
            Rejection(*row)
            for row in session.execute(statement.where(rejected).limit(_REJECTIONS_SHOWN - len(rejections)))
        ]
        if len(rejections) == _REJECTIONS_SHOWN:
            break
    return tuple(rejections)
