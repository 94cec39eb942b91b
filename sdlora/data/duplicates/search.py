"""Search for similar images. Pairs are found and recorded once, when an image is first decoded."""

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
from sdlora.store.bulk import chunks, insert_or_ignore
from sdlora.store.tables.images import FingerprintTable

_MAX_UNINDEXED = 16_384  # hashes that are scanned before they enter the index
_ROWS_PER_READ = 50_000
_PAIRS_PER_COMPARISON = 4_096  # after so many pairs, clusters may make other comparisons needless


class SimilarPairs:
    """Exact search over all recorded hashes in memory: 40 bytes per image, and 64 more in the index.

    Args:
        apply: a `map`, possibly in several processes, that compares pairs.
    """

    def __init__(self, apply: Apply = map) -> None:
        self._apply = apply
        self._ids: IntArray = np.empty(0, np.int64)
        self._hashes: HashArray = np.empty((0, HASH_COUNT), np.uint64)
        self._indexes: list[HammingIndex] = []
        self._indexed_count = 0
        self._clusters = Clusters()
        self._cache = FingerprintCache()

    def add(self, session: Session, fingerprints: Mapping[str, Fingerprint]) -> dict[str, int]:
        """Record fingerprints and their similar pairs; return fingerprint ids by digest of the pixels.

        `session` must hold the write lock, so that no fingerprint of another process stays uncompared.
        """
        self._read_new(session)  # fingerprints that other processes have added and compared since
        rows = [
            {
                "pixels_sha256": pixels,
                "version": VERSION,
                "hashes": np.array(fingerprint.hashes, ">u8").tobytes(),
                "aspect": fingerprint.aspect,
                "thumbnail": fingerprint.thumbnail,
            }
            for pixels, fingerprint in fingerprints.items()
        ]
        insert_or_ignore(session, FingerprintTable, rows)
        first_new = self._read_new(session)
        self._record_pairs(session, first_new)
        return self._ids_by_pixels(session, list(fingerprints))

    def _read_new(self, session: Session) -> int:
        """Read the fingerprints added since the last call; return the position of the first."""
        known_count = len(self._ids)
        statement = select(FingerprintTable.id, FingerprintTable.hashes).order_by(FingerprintTable.id)
        statement = statement.where(FingerprintTable.version == VERSION)
        statement = statement.where(FingerprintTable.id > (int(self._ids[-1]) if known_count else 0))
        ids, hashes = [self._ids], [self._hashes]
        for rows in session.execute(statement.execution_options(yield_per=_ROWS_PER_READ)).partitions():
            chunk_ids, chunk_hashes = zip(*rows, strict=True)
            ids.append(np.array(chunk_ids, np.int64))
            packed = np.frombuffer(b"".join(chunk_hashes), ">u8").astype(np.uint64)
            hashes.append(packed.reshape(-1, HASH_COUNT))
        last = int(self._ids[-1]) if known_count else 0
        self._ids, self._hashes = np.concatenate(ids), np.concatenate(hashes)
        self._clusters.learn(same_pairs(session, last))
        return known_count

    def _record_pairs(self, session: Session, first_new: int) -> None:
        """Compare the fingerprints from a position on with all earlier ones, and with each other."""
        clusters = self._clusters.full()
        is_hidden = np.isin(self._ids, [member for members in clusters.values() for member in members])
        pending = self._alike(first_new, ~is_hidden)
        while len(pending):
            with_representatives = np.isin(pending[:, 0], list(self._clusters.full()))
            if with_representatives.any():  # first, because this may make other comparisons needless
                chunk, pending = pending[with_representatives], pending[~with_representatives]
            else:
                chunk, pending = pending[:_PAIRS_PER_COMPARISON], pending[_PAIRS_PER_COMPARISON:]
            self._clusters.learn(compare(session, chunk, self._apply, self._cache))
            pending = pending[~self._clusters.same_cluster(pending)]
        self._clusters.learn(compare(session, self._alike_in_clusters(first_new, clusters), self._apply, self._cache))

    def _alike(self, first_new: int, visible: BoolArray) -> IntArray:
        """Find pairs (N, 2) of close visible fingerprints, at least one of them new, by their second, larger id."""
        self._update_index(first_new)
        fresh = self._hashes[first_new:]
        if not len(fresh):
            return np.empty((0, 2), np.int64)
        unindexed = np.flatnonzero(visible[self._indexed_count :]) + self._indexed_count
        pair_chunks = []
        for column, indexed_column in SEARCHES:
            queries = np.ascontiguousarray(fresh[:, column])
            if self._indexed_count:
                queries_found, indexed = self._indexes[indexed_column].within(queries, HASH_DISTANCE)
                is_visible = visible[indexed]
                pair_chunks.append(np.stack([queries_found[is_visible] + first_new, indexed[is_visible]], axis=1))
            scanned = scan(self._hashes[unindexed, indexed_column], queries, np.arange(len(fresh)), HASH_DISTANCE)
            pair_chunks.append(np.stack([scanned[:, 0] + first_new, unindexed[scanned[:, 1]]], axis=1))
        return self._pairs_of_ids(pair_chunks)

    def _alike_in_clusters(self, first_new: int, clusters: Mapping[int, Sequence[int]]) -> IntArray:
        """Find pairs of new fingerprints and members of other clusters, which `_alike` leaves out."""
        pair_chunks = [np.empty((0, 2), np.int64)]
        fresh = self._ids[first_new:].tolist()
        for representative, ids in clusters.items():
            is_member = [self._clusters.has_member(representative, fingerprint_id) for fingerprint_id in fresh]
            non_members = np.flatnonzero(~np.array(is_member, np.bool_))
            members = np.searchsorted(self._ids, ids)
            for column, member_column in SEARCHES:
                near = scan(
                    self._hashes[members, member_column], self._hashes[first_new:, column], non_members, HASH_DISTANCE
                )
                pair_chunks.append(np.stack([near[:, 0] + first_new, members[near[:, 1]]], axis=1))
        return self._pairs_of_ids(pair_chunks)

    def _pairs_of_ids(self, pair_chunks: Sequence[IntArray]) -> IntArray:
        """Convert pairs of positions to unique pairs of ids, the smaller first."""
        pairs = np.sort(np.concatenate(pair_chunks), axis=1)
        pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]][:, ::-1], axis=0)[:, ::-1]
        ids: IntArray = self._ids[pairs]
        return ids

    def _update_index(self, end: int) -> None:
        """Rebuild the index over the hashes before `end`, once enough of them are missing from it."""
        if end - self._indexed_count > max(_MAX_UNINDEXED, self._indexed_count // 8):
            self._indexes = [HammingIndex(self._hashes[:end, column]) for column in range(HASH_COUNT)]
            self._indexed_count = end

    def _ids_by_pixels(self, session: Session, pixels: Sequence[str]) -> dict[str, int]:
        ids_by_pixels: dict[str, int] = {}
        for chunk in chunks(pixels):
            statement = select(FingerprintTable.pixels_sha256, FingerprintTable.id).where(
                FingerprintTable.pixels_sha256.in_(chunk), FingerprintTable.version == VERSION
            )
            ids_by_pixels.update((digest, fingerprint_id) for digest, fingerprint_id in session.execute(statement))
        return ids_by_pixels
