"""Clusters of copies in memory: their members need not be compared with each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence, Set

import numpy as np
from sqlalchemy.orm import Session

from sdlora.data.arrays import BoolArray, HashArray, IntArray
from sdlora.data.duplicates.fingerprint import HASH_DISTANCE, SEARCHES
from sdlora.data.duplicates.pairs import Pair, compare, read_fingerprints
from sdlora.store.clusters import MIN_MEMBERS, SAME_DIFFERENCE


class Clusters:
    """Representative of each fingerprint that equals an earlier one. A representative has none itself.

    Only pairs of two members of one cluster are skipped. Both members have been compared with the representative, so a
    chain of recorded pairs connects them.
    """

    def __init__(self) -> None:
        self._representative_of: dict[int, int] = {}
        self._members: dict[int, list[int]] = {}

    def learn(self, pairs: Iterable[Pair]) -> None:
        """Add compared pairs, in order of their second id."""
        for first_id, second_id, difference in sorted(pairs, key=lambda pair: (pair[1], pair[0])):
            if difference < SAME_DIFFERENCE and self._representative_of.keys().isdisjoint((first_id, second_id)):
                self._representative_of[second_id] = first_id
                self._members.setdefault(first_id, []).append(second_id)

    def full(self) -> dict[int, list[int]]:
        """Return the members of each cluster by representative, if they are at least MIN_MEMBERS."""
        return {
            representative: list(members)
            for representative, members in self._members.items()
            if len(members) >= MIN_MEMBERS
        }

    def has_member(self, representative: int, fingerprint_id: int) -> bool:
        """Return whether a fingerprint is a member of the cluster of this representative."""
        return self._representative_of.get(fingerprint_id) == representative

    def same_cluster(self, pairs: IntArray) -> BoolArray:
        """Return (N,) whether both members of a pair are in one cluster."""
        full = self.full()
        if not full:
            return np.zeros(len(pairs), np.bool_)
        ids, inverse = np.unique(pairs, return_inverse=True)
        nearest = [self._representative_of.get(fingerprint_id, -1) for fingerprint_id in ids.tolist()]
        representatives = np.array(
            [representative if representative in full else -1 for representative in nearest], np.int64
        )
        sides = representatives[inverse.reshape(pairs.shape)]
        same: BoolArray = (sides[:, 0] == sides[:, 1]) & (sides[:, 0] >= 0)
        return same


class SkippedPairs:
    """Later comparison of kept images with the cluster members that were skipped earlier.

    Only pairs with a kept image decide which images are copies.

    Args:
        pairs: all recorded pairs of some groups, or at least those below SAME_DIFFERENCE.
        candidate_ids: fingerprints that matter; others of the groups are images of other datasets, or rejected ones.
    """

    def __init__(self, session: Session, pairs: Sequence[Pair], candidate_ids: Set[int]) -> None:
        self._session, self._candidate_ids = session, candidate_ids
        neighbours: defaultdict[int, set[int]] = defaultdict(set)
        for first_id, second_id, difference in pairs:
            if difference < SAME_DIFFERENCE:
                neighbours[first_id].add(second_id)
                neighbours[second_id].add(first_id)
        clusters = [members | {first_id} for first_id, members in neighbours.items() if len(members) >= MIN_MEMBERS]
        self._clusters_of: defaultdict[int, list[set[int]]] = defaultdict(list)
        for cluster in clusters:
            for member in cluster:
                self._clusters_of[member].append(cluster)

    def pairs_with(self, fingerprint_id: int, paired_ids: Iterable[int]) -> list[Pair]:
        """Compare a fingerprint with all candidates in its clusters except `paired_ids`."""
        if fingerprint_id not in self._clusters_of:
            return []
        in_clusters = set().union(*self._clusters_of[fingerprint_id]) & self._candidate_ids
        other_ids = in_clusters - set(paired_ids) - {fingerprint_id}
        fingerprints = read_fingerprints(self._session, other_ids | {fingerprint_id})
        if fingerprint_id not in fingerprints or not other_ids:
            return []
        own = np.array(fingerprints.pop(fingerprint_id).hashes, np.uint64)
        close = _are_close(own, np.array([fingerprint.hashes for fingerprint in fingerprints.values()], np.uint64))
        pairs = [
            sorted((other_id, fingerprint_id))
            for other_id, is_close in zip(fingerprints, close, strict=True)
            if is_close
        ]
        return compare(self._session, np.array(pairs, np.int64).reshape(-1, 2))


def _are_close(own_hashes: HashArray, candidate_hashes: HashArray) -> Sequence[bool]:
    """Return whether each row of hashes is near enough for a comparison, as in a search."""
    distances = [
        np.bitwise_count(candidate_hashes[:, other_column] ^ own_hashes[own_column])
        for own_column, other_column in SEARCHES
    ]
    close: list[bool] = (np.min(distances, axis=0) <= HASH_DISTANCE).tolist()
    return close
