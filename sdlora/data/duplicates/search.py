"""Search for the images that look like a new one: pairs are found and recorded once, when an image is first decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from sdlora.data.arrays import BoolArray, HashArray, IntArray
from sdlora.data.duplicates.clusters import Clusters
from sdlora.data.duplicates.difference import Apply
from sdlora.data.duplicates.fingerprint import HASH_COUNT, HASH_DISTANCE, SEARCHES, VERSION, Fingerprint
from sdlora.data.duplicates.index import HammingIndex, scan
from sdlora.data.duplicates.pairs import FingerprintCache, compare, same_pairs
from sdlora.store.intake import chunks, insert_or_ignore
from sdlora.store.tables import FingerprintTable

_MAX_UNFILED = 16_384  # hashes that are compared one by one before they are filed in the index
_ROWS_AT_ONCE = 50_000  # read at once
_PAIRS_AT_ONCE = 4_096  # pairs compared before it is looked whether a cluster makes others needless


class SimilarPairs:
    """The recorded hashes in memory, 40 bytes an image and 64 more in an index, for an exact search.

    Args:
        apply: does what `map` does; the comparing of pairs is left to it.
    """

    def __init__(self, apply: Apply = map) -> None:
        self._apply = apply
        self._ids: IntArray = np.empty(0, np.int64)
        self._hashes: HashArray = np.empty((0, HASH_COUNT), np.uint64)
        self._indexes: list[HammingIndex] = []
        self._filed = 0
        self._clusters = Clusters()
        self._cache = FingerprintCache()

    def add(self, session: Session, fingerprints: Mapping[str, Fingerprint]) -> dict[str, int]:
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
            for pixels, look in fingerprints.items()
        ]
        insert_or_ignore(session, FingerprintTable, rows)
        first_new = self._read_on(session)
        self._record_pairs(session, first_new)
        return self._ids_by_pixels(session, list(fingerprints))

    def _read_on(self, session: Session) -> int:
        """Take in the fingerprints that were added since the last look; returns the position of the first."""
        known = len(self._ids)
        statement = select(FingerprintTable.id, FingerprintTable.hashes).order_by(FingerprintTable.id)
        statement = statement.where(FingerprintTable.version == VERSION)
        statement = statement.where(FingerprintTable.id > (int(self._ids[-1]) if known else 0))
        ids, hashes = [self._ids], [self._hashes]
        for rows in session.execute(statement.execution_options(yield_per=_ROWS_AT_ONCE)).partitions():
            some_ids, some_hashes = zip(*rows, strict=True)
            ids.append(np.array(some_ids, np.int64))
            packed = np.frombuffer(b"".join(some_hashes), ">u8").astype(np.uint64)
            hashes.append(packed.reshape(-1, HASH_COUNT))
        last = int(self._ids[-1]) if known else 0
        self._ids, self._hashes = np.concatenate(ids), np.concatenate(hashes)
        self._clusters.learn(same_pairs(session, last))
        return known

    def _record_pairs(self, session: Session, first_new: int) -> None:
        """Compare the fingerprints from a position on with all before them, and with one another."""
        clusters = self._clusters.full()
        hidden = np.isin(self._ids, [one for members in clusters.values() for one in members])
        waiting = self._alike(first_new, ~hidden)
        while len(waiting):
            with_representatives = np.isin(waiting[:, 0], list(self._clusters.full()))
            if with_representatives.any():  # first, as it may make others needless
                some, waiting = waiting[with_representatives], waiting[~with_representatives]
            else:
                some, waiting = waiting[:_PAIRS_AT_ONCE], waiting[_PAIRS_AT_ONCE:]
            self._clusters.learn(compare(session, some, self._apply, self._cache))
            waiting = waiting[~self._clusters.same_cluster(waiting)]
        self._clusters.learn(compare(session, self._alike_in_clusters(first_new, clusters), self._apply, self._cache))

    def _alike(self, first_new: int, visible: BoolArray) -> IntArray:
        """(N, 2) ids of visible fingerprints with close hashes, one of them new, ordered by the second, larger id."""
        self._file(first_new)
        fresh = self._hashes[first_new:]
        if not len(fresh):
            return np.empty((0, 2), np.int64)
        unfiled = np.flatnonzero(visible[self._filed :]) + self._filed
        found = []
        for one, other in SEARCHES:
            queries = np.ascontiguousarray(fresh[:, one])
            if self._filed:
                who, filed = self._indexes[other].within(queries, HASH_DISTANCE)
                seen = visible[filed]
                found.append(np.stack([who[seen] + first_new, filed[seen]], axis=1))
            rest = scan(self._hashes[unfiled, other], queries, np.arange(len(fresh)), HASH_DISTANCE)
            found.append(np.stack([rest[:, 0] + first_new, unfiled[rest[:, 1]]], axis=1))
        return self._pairs_of_ids(found)

    def _alike_in_clusters(self, first_new: int, clusters: Mapping[int, Sequence[int]]) -> IntArray:
        """As above, of new fingerprints and the members of other clusters, which were left out there."""
        found = [np.empty((0, 2), np.int64)]
        fresh = self._ids[first_new:].tolist()
        for representative, ids in clusters.items():
            is_member = [self._clusters.has_member(representative, one) for one in fresh]
            strangers = np.flatnonzero(~np.array(is_member, np.bool_))
            members = np.searchsorted(self._ids, ids)
            for one, other in SEARCHES:
                near = scan(self._hashes[members, other], self._hashes[first_new:, one], strangers, HASH_DISTANCE)
                found.append(np.stack([near[:, 0] + first_new, members[near[:, 1]]], axis=1))
        return self._pairs_of_ids(found)

    def _pairs_of_ids(self, found: Sequence[IntArray]) -> IntArray:
        """Each pair of positions once, as ids, the smaller first."""
        pairs = np.sort(np.concatenate(found), axis=1)
        pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]][:, ::-1], axis=0)[:, ::-1]
        ids: IntArray = self._ids[pairs]
        return ids

    def _file(self, end: int) -> None:
        """Put the hashes before `end` into the index, once they are many enough to be worth a new one."""
        if end - self._filed > max(_MAX_UNFILED, self._filed // 8):
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
