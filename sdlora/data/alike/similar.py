"""The pairs of images that look alike, recorded once, when an image is first decoded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

import numpy as np
import numpy.typing as npt
from sqlalchemy import select
from sqlalchemy.orm import Session

from sdlora.data.alike.alignment import differences
from sdlora.data.alike.fingerprint import HASH_COUNT, HASH_DISTANCE, SEARCHES, VERSION, Fingerprint
from sdlora.data.alike.hamming import HammingIndex, scan
from sdlora.data.config import MAX_DIFFERENCE
from sdlora.store.intake import chunks, insert_or_ignore
from sdlora.store.tables import FingerprintTable, SimilarPairTable

IntArray = npt.NDArray[np.int64]

_UNFILED = 16_384  # hashes that are compared one by one before they are filed in the index
_ROWS = 50_000  # read at once
_COMPARED = 4_096  # pairs compared at once: their thumbnails take some 25 MB


class SimilarPairs:
    """The recorded hashes in memory, 40 bytes an image and 64 more in an index, for an exact search."""

    def __init__(self) -> None:
        self._ids: IntArray = np.empty(0, np.int64)
        self._hashes: npt.NDArray[np.uint64] = np.empty((0, HASH_COUNT), np.uint64)
        self._indexes: list[HammingIndex] = []
        self._filed = 0

    def add(self, session: Session, looks: Mapping[str, Fingerprint]) -> dict[str, int]:
        """Record fingerprints and all the pairs that they make; returns fingerprint ids by digest of the pixels.

        `session` holds the write lock, so that no fingerprint of another process slips in uncompared.
        """
        self._read_on(session)  # what other processes have added, and compared, since
        rows = [
            {
                "pixels_sha256": pixels,
                "version": VERSION,
                "hashes": np.array(look.hashes, ">u8").tobytes(),
                "aspect": look.aspect,
                "thumbnail": look.thumbnail,
            }
            for pixels, look in looks.items()
        ]
        insert_or_ignore(session, FingerprintTable, rows)
        first_new = self._read_on(session)
        self._record_pairs(session, first_new)
        return self._ids_by_pixels(session, list(looks))

    def _read_on(self, session: Session) -> int:
        """Take in the fingerprints that were added since the last look; returns the position of the first."""
        known = len(self._ids)
        statement = select(FingerprintTable.id, FingerprintTable.hashes).order_by(FingerprintTable.id)
        statement = statement.where(FingerprintTable.version == VERSION)
        statement = statement.where(FingerprintTable.id > (int(self._ids[-1]) if known else 0))
        ids, hashes = [self._ids], [self._hashes]
        for rows in session.execute(statement.execution_options(yield_per=_ROWS)).partitions():
            some_ids, some_hashes = zip(*rows, strict=True)
            ids.append(np.array(some_ids, np.int64))
            packed = np.frombuffer(b"".join(some_hashes), ">u8").astype(np.uint64)
            hashes.append(packed.reshape(-1, HASH_COUNT))
        self._ids, self._hashes = np.concatenate(ids), np.concatenate(hashes)
        return known

    def _record_pairs(self, session: Session, first_new: int) -> None:
        """Compare the fingerprints from a position on with all before them, and with one another."""
        alike = self._alike(first_new)
        for some in np.split(alike, range(_COMPARED, len(alike), _COMPARED)):
            found = _fingerprints(session, np.unique(some).tolist())
            # Nothing is found of an image that was purged since its hashes were read.
            present = some[np.isin(some, list(found)).all(axis=1)]
            places = {identity: place for place, identity in enumerate(found)}
            pairs = np.array([[places[first], places[second]] for first, second in present.tolist()], np.int64)
            result = differences(list(found.values()), pairs.reshape(-1, 2))
            rows = [
                {"first_id": first, "second_id": second, "difference": float(difference)}
                for (first, second), difference in zip(present.tolist(), result, strict=True)
                if difference <= MAX_DIFFERENCE
            ]
            insert_or_ignore(session, SimilarPairTable, rows)

    def _alike(self, first_new: int) -> IntArray:
        """(N, 2) ids of fingerprints whose hashes are close, the smaller id first, one of them new."""
        self._file(first_new)
        fresh = self._hashes[first_new:]
        if not len(fresh):
            return np.empty((0, 2), np.int64)
        unfiled = self._hashes[self._filed :]
        found = []
        for one, other in SEARCHES:
            queries = np.ascontiguousarray(fresh[:, one])
            if self._filed:
                who, filed = self._indexes[other].within(queries, HASH_DISTANCE)
                found.append(np.stack([who + first_new, filed], axis=1))
            rest = scan(np.ascontiguousarray(unfiled[:, other]), queries, np.arange(len(fresh)), HASH_DISTANCE)
            found.append(rest + np.array([first_new, self._filed]))
        pairs = np.sort(np.concatenate(found), axis=1)
        pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
        ids: IntArray = self._ids[pairs]
        return ids

    def _file(self, end: int) -> None:
        """Put the hashes before `end` into the index, once they are many enough to be worth a new one."""
        if end - self._filed > max(_UNFILED, self._filed // 8):
            self._indexes = [HammingIndex(self._hashes[:end, column]) for column in range(HASH_COUNT)]
            self._filed = end

    def _ids_by_pixels(self, session: Session, pixels: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for chunk in chunks(pixels):
            statement = select(FingerprintTable.pixels_sha256, FingerprintTable.id).where(
                FingerprintTable.pixels_sha256.in_(chunk), FingerprintTable.version == VERSION
            )
            found.update((digest, identity) for digest, identity in session.execute(statement))
        return found


def group_around(
    session: Session, fingerprint_ids: Set[int], threshold: float
) -> tuple[set[int], list[tuple[int, int, float]]]:
    """The fingerprints that are joined to these by a chain of pairs below the threshold, and all such pairs."""
    group, fresh = set(fingerprint_ids), sorted(fingerprint_ids)
    pairs: dict[tuple[int, int], float] = {}
    table = SimilarPairTable
    below = select(table.first_id, table.second_id, table.difference).where(table.difference < threshold)
    while fresh:
        reached: set[int] = set()
        for chunk in chunks(fresh):
            for end in (table.first_id, table.second_id):
                for first, second, found in session.execute(below.where(end.in_(chunk))):
                    pairs[first, second] = found
                    reached |= {first, second}
        fresh = sorted(reached - group)
        group |= reached
    return group, [(first, second, found) for (first, second), found in pairs.items()]


def pairs_below(session: Session, threshold: float) -> list[tuple[int, int, float]]:
    """(fingerprint id, fingerprint id, difference) of all pairs that differ less than the threshold."""
    statement = select(SimilarPairTable.first_id, SimilarPairTable.second_id, SimilarPairTable.difference)
    return [tuple(row) for row in session.execute(statement.where(SimilarPairTable.difference < threshold))]


def _fingerprints(session: Session, identities: Iterable[int]) -> dict[int, Fingerprint]:
    found: dict[int, Fingerprint] = {}
    for chunk in chunks(sorted(identities)):
        statement = select(
            FingerprintTable.id, FingerprintTable.hashes, FingerprintTable.aspect, FingerprintTable.thumbnail
        ).where(FingerprintTable.id.in_(chunk))
        for identity, hashes, aspect, thumbnail in session.execute(statement):
            unpacked = tuple(np.frombuffer(hashes, ">u8").tolist())
            found[identity] = Fingerprint(unpacked, aspect, thumbnail)
    return found
