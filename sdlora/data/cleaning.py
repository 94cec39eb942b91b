"""Give every image a verdict with a reason. An image is decoded once; later rounds decide from its recorded scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from sdlora.data.config import DataConfig
from sdlora.data.duplicates import EXACT, NEAR, find_copies, rulings
from sdlora.data.ledger import (
    Known,
    copy_candidates,
    judge,
    known_of,
    needs_measuring,
    record_measurements,
    record_rulings,
    record_verdicts,
    rules_digest,
    undecided,
)
from sdlora.data.measure import Measurement, measure_all
from sdlora.data.similar import SimilarPairs, pairs_below
from sdlora.progress import OnProgress
from sdlora.store import Counts, ImageStore
from sdlora.store.intake import chunks
from sdlora.store.queries import count_images
from sdlora.store.tables import ImageTable

_SHOWN = 20


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


def clean(store: ImageStore, config: DataConfig, on_progress: OnProgress | None = None) -> CleanReport:
    """Decide over every image that has no verdict under these settings. Nothing is deleted.

    Only images without recorded scores are decoded. A run that is killed keeps what it has measured.

    Raises:
        DataError: the bytes of an image are missing or damaged.
        StorageError: the disk is full or not writable.
    """
    rules = rules_digest(config)
    with store.read() as session:
        pending = undecided(session, rules)
        if not pending:
            return CleanReport(0, 0, count_images(session), ())
        unseen = {
            known.sha256: known
            for chunk in chunks(pending)
            for known in known_of(session, chunk)
            if needs_measuring(known, config)
        }
    _measure(store, unseen, config, on_progress)
    with store.write() as session:
        _decide(session, pending, rules, config)
        return CleanReport(len(unseen), len(pending), count_images(session), _first_rejections(session, pending))


def _measure(store: ImageStore, unseen: dict[str, Known], config: DataConfig, on_progress: OnProgress | None) -> None:
    pairs = SimilarPairs()
    sizes = {sha256: known.byte_size for sha256, known in unseen.items()}
    done = 0
    for batch in _batches(measure_all(store.blobs, sizes, config.max_pixels)):
        looks = {one.pixels_sha256: one.fingerprint for one in batch if one.pixels_sha256 and one.fingerprint}
        with store.write() as session:
            fingerprint_ids = pairs.add(session, looks)
            record_measurements(session, {unseen[one.sha256].image_id: one for one in batch}, fingerprint_ids, config)
        done += len(batch)
        if on_progress:
            on_progress("check images", done, len(unseen))


def _batches(measurements: Iterator[Measurement], size: int = 100) -> Iterator[list[Measurement]]:
    while batch := list(islice(measurements, size)):
        yield batch


def _decide(session: Session, pending: Sequence[int], rules: str, config: DataConfig) -> None:
    for chunk in chunks(pending):
        single = {known.image_id: judge(known.scores, known.problem, config) for known in known_of(session, chunk)}
        record_rulings(session, single)
        record_verdicts(session, single, rules)
    pairs = pairs_below(session, config.near_duplicate_difference)
    involved = _shared_fingerprints(session) | {identity for first, second, _ in pairs for identity in (first, second)}
    copies = find_copies(copy_candidates(session, sorted(involved)), pairs, config.near_duplicate_difference)
    # An image that was a copy may be the best of its group now, and the other way round.
    changed = (set(copies) | _former_copies(session)) - set(pending)
    passed = set(_accepted(session, pending))
    for chunk in chunks(sorted(changed | passed)):
        by_image = {image_id: rulings(copies.get(image_id), config) for image_id in chunk}
        record_rulings(session, by_image)
        record_verdicts(session, by_image, rules)


def _shared_fingerprints(session: Session) -> set[int]:
    grouped = select(ImageTable.fingerprint_id).group_by(ImageTable.fingerprint_id).having(func.count() > 1)
    return {identity for identity in session.scalars(grouped) if identity is not None}


def _former_copies(session: Session) -> set[int]:
    return set(session.scalars(select(ImageTable.id).where(ImageTable.rejected_by.in_((EXACT, NEAR)))))


def _accepted(session: Session, image_ids: Sequence[int]) -> Iterator[int]:
    for chunk in chunks(image_ids):
        accepted = ImageTable.id.in_(chunk) & (ImageTable.verdict == "accepted")
        yield from session.scalars(select(ImageTable.id).where(accepted))


def _first_rejections(session: Session, image_ids: Sequence[int]) -> tuple[Rejection, ...]:
    found: list[Rejection] = []
    for chunk in chunks(image_ids):
        statement = select(ImageTable.sha256, ImageTable.rejected_by, ImageTable.reason).order_by(ImageTable.id)
        rejected = ImageTable.id.in_(chunk) & (ImageTable.verdict == "rejected")
        found += [Rejection(*row) for row in session.execute(statement.where(rejected).limit(_SHOWN - len(found)))]
        if len(found) == _SHOWN:
            break
    return tuple(found)
