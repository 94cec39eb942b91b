"""Pairs of similar fingerprints: comparison, recording and reading."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from sdlora.data.arrays import FloatArray, IntArray
from sdlora.data.config import MAX_DIFFERENCE
from sdlora.data.duplicates.difference import Apply, coarse_cells, differences
from sdlora.data.duplicates.fingerprint import Fingerprint
from sdlora.store.bulk import chunks, insert_or_ignore
from sdlora.store.clusters import SAME_DIFFERENCE
from sdlora.store.tables.images import FingerprintTable, SimilarPairTable

Pair = tuple[int, int, float]
"""(smaller fingerprint id, larger fingerprint id, difference in grey levels)."""

_PAIRS_PER_COMPARISON = 4_096  # thumbnails of so many pairs take some 25 MB
_MAX_CACHED_FINGERPRINTS = 8_192  # some 50 MB


@dataclass
class FingerprintCache:
    """Cache of the latest fingerprints and their cells for a coarse match, by fingerprint id.

    While a collection comes in, an image with hashes close to many others is read again and again.
    """

    _recent: dict[int, tuple[Fingerprint, FloatArray]] = field(default_factory=dict)
    _pixels: dict[int, str] = field(default_factory=dict)

    def read(self, session: Session, fingerprint_ids: list[int]) -> dict[int, tuple[Fingerprint, FloatArray]]:
        """Read the recorded ones of these ids. An image purged since its hashes were read is missing."""
        table = FingerprintTable
        statements = (
            select(table.id, table.pixels_sha256).where(table.id.in_(chunk)) for chunk in chunks(fingerprint_ids)
        )
        recorded = {
            fingerprint_id: pixels for statement in statements for fingerprint_id, pixels in session.execute(statement)
        }
        # SQLite reuses the id of a purged image.
        cached_ids = [
            fingerprint_id
            for fingerprint_id in fingerprint_ids
            if fingerprint_id in self._recent and self._pixels[fingerprint_id] == recorded.get(fingerprint_id)
        ]
        cached = {fingerprint_id: self._recent.pop(fingerprint_id) for fingerprint_id in cached_ids}
        fresh = read_fingerprints(session, recorded.keys() - cached.keys())
        if fresh:
            coarse = coarse_cells(list(fresh.values()))
            cached.update(zip(fresh, zip(fresh.values(), coarse, strict=True), strict=True))
        self._pixels.update(recorded)
        self._recent.update(cached)  # moves them behind all others
        for oldest in list(self._recent)[: max(0, len(self._recent) - _MAX_CACHED_FINGERPRINTS)]:
            del self._recent[oldest], self._pixels[oldest]
        return cached


def compare(session: Session, ids: IntArray, apply: Apply = map, cache: FingerprintCache | None = None) -> list[Pair]:
    """Compare pairs (N, 2) of fingerprint ids; record and return pairs that differ by at most MAX_DIFFERENCE."""
    cache = cache or FingerprintCache()
    alike: list[Pair] = []
    for chunk in np.split(ids, range(_PAIRS_PER_COMPARISON, len(ids), _PAIRS_PER_COMPARISON)):
        cached = cache.read(session, np.unique(chunk).tolist())
        present_pairs = chunk[np.isin(chunk, list(cached)).all(axis=1)]
        if not len(present_pairs):
            continue
        pairs = np.searchsorted(np.array(sorted(cached)), present_pairs)
        fingerprints, cells = zip(*(cached[fingerprint_id] for fingerprint_id in sorted(cached)), strict=True)
        chunk_differences = differences(fingerprints, pairs, apply, np.stack(cells)).tolist()
        alike += [
            (first_id, second_id, difference)
            for (first_id, second_id), difference in zip(present_pairs.tolist(), chunk_differences, strict=True)
            if difference <= MAX_DIFFERENCE
        ]
    rows = [
        {"first_id": first_id, "second_id": second_id, "difference": difference}
        for first_id, second_id, difference in alike
    ]
    insert_or_ignore(session, SimilarPairTable, rows)
    return alike


def read_fingerprints(session: Session, fingerprint_ids: Iterable[int]) -> dict[int, Fingerprint]:
    """Read fingerprints by id, in ascending order of ids. A purged image has none."""
    fingerprints: dict[int, Fingerprint] = {}
    table = FingerprintTable
    for chunk in chunks(sorted(fingerprint_ids)):
        statement = select(table.id, table.hashes, table.aspect, table.thumbnail).where(table.id.in_(chunk))
        for fingerprint_id, hashes, aspect, thumbnail in session.connection().execute(statement.order_by(table.id)):
            fingerprints[fingerprint_id] = Fingerprint(tuple(np.frombuffer(hashes, ">u8").tolist()), aspect, thumbnail)
    return fingerprints


def same_pairs(session: Session, after: int) -> list[Pair]:
    """Read the recorded pairs of equal fingerprints whose second id is greater than `after`."""
    table = SimilarPairTable
    statement = select(table.first_id, table.second_id, table.difference)
    same = statement.where(table.second_id > after, table.difference < SAME_DIFFERENCE)
    return [(first_id, second_id, difference) for first_id, second_id, difference in session.connection().execute(same)]


def group_around(session: Session, fingerprint_ids: Set[int], threshold: float) -> tuple[set[int], list[Pair]]:
    """Find the fingerprints connected to these by a chain of pairs below the threshold, and all such pairs.

    Pairs within a cluster may be missing. At a low threshold, the chain runs through the representative of a cluster.
    """
    group, fresh = set(fingerprint_ids), sorted(fingerprint_ids)
    pairs: dict[tuple[int, int], float] = {}
    table = SimilarPairTable
    reach = max(threshold, SAME_DIFFERENCE)
    below = select(table.first_id, table.second_id, table.difference).where(table.difference < reach)
    while fresh:
        reached: set[int] = set()
        for chunk in chunks(fresh):
            for end in (table.first_id, table.second_id):
                for first_id, second_id, difference in session.connection().execute(below.where(end.in_(chunk))):
                    pairs[first_id, second_id] = difference
                    reached |= {first_id, second_id}
        fresh = sorted(reached - group)
        group |= reached
    return group, [(first_id, second_id, difference) for (first_id, second_id), difference in pairs.items()]


def pairs_below(session: Session, threshold: float) -> list[Pair]:
    """Read all pairs that differ less than the threshold."""
    statement = select(SimilarPairTable.first_id, SimilarPairTable.second_id, SimilarPairTable.difference)
    return [tuple(row) for row in session.execute(statement.where(SimilarPairTable.difference < threshold))]
