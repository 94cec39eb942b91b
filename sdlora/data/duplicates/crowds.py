"""Crowds in memory: which pairs need not be compared when they come in, and which of these are asked for after all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from sqlalchemy.orm import Session

from sdlora.data.arrays import BoolArray, HashArray, IntArray
from sdlora.data.duplicates.difference import Pair, compare, read_fingerprints
from sdlora.data.duplicates.fingerprint import HASH_DISTANCE, SEARCHES
from sdlora.store.crowds import CROWD, SAME_DIFFERENCE


class Crowds:
    """Which fingerprint follows which: is the same as it, and came later. A follower is not followed.

    Only pairs of two followers of one hub are ever passed over. Each of the two has been compared with the hub, so
    that a chain of recorded pairs leads from one to the other.
    """

    def __init__(self) -> None:
        self._hub_of: dict[int, int] = {}
        self._followers: dict[int, list[int]] = {}

    def learn(self, pairs: Iterable[Pair]) -> None:
        """Take in compared pairs, by their second id."""
        for first, second, difference in sorted(pairs, key=lambda pair: (pair[1], pair[0])):
            if difference < SAME_DIFFERENCE and first not in self._hub_of and second not in self._hub_of:
                self._hub_of[second] = first
                self._followers.setdefault(first, []).append(second)

    def full(self) -> dict[int, list[int]]:
        """Followers by hub, of the hubs that have enough of them for a crowd."""
        return {hub: list(mates) for hub, mates in self._followers.items() if len(mates) >= CROWD}

    def follows(self, fingerprint_id: int, hub: int) -> bool:
        return self._hub_of.get(fingerprint_id) == hub

    def settled(self, pairs: IntArray) -> BoolArray:
        """(N,) whether both of a pair follow the same hub of a crowd."""
        full = self.full()
        if not full:
            return np.zeros(len(pairs), np.bool_)
        ids, where = np.unique(pairs, return_inverse=True)
        hubs = np.array([hub if (hub := self._hub_of.get(one, -1)) in full else -1 for one in ids.tolist()], np.int64)
        sides = hubs[where.reshape(pairs.shape)]
        settled: BoolArray = (sides[:, 0] == sides[:, 1]) & (sides[:, 0] >= 0)
        return settled


class CrowdLooks:
    """Makes up for what was passed over of the images that are kept; only their pairs decide who is a copy.

    Args:
        pairs: all recorded pairs of some groups, or at least those below SAME_DIFFERENCE.
    """

    def __init__(self, session: Session, pairs: Sequence[Pair]) -> None:
        self._session = session
        same: defaultdict[int, set[int]] = defaultdict(set)
        for first, second, difference in pairs:
            if difference < SAME_DIFFERENCE:
                same[first].add(second)
                same[second].add(first)
        self._crowds = {hub: mates | {hub} for hub, mates in same.items() if len(mates) >= CROWD}
        self._hubs_of: defaultdict[int, list[int]] = defaultdict(list)
        for hub, crowd in self._crowds.items():
            for one in crowd:
                self._hubs_of[one].append(hub)

    def pairs_with(self, fingerprint_id: int, known: Iterable[int]) -> list[Pair]:
        """Compare a fingerprint with all of its crowds but those that it is known to look like."""
        if fingerprint_id not in self._hubs_of:
            return []
        crowd = set().union(*(self._crowds[hub] for hub in self._hubs_of[fingerprint_id]))
        others = crowd - set(known) - {fingerprint_id}
        looks = read_fingerprints(self._session, others | {fingerprint_id})
        if fingerprint_id not in looks or not others:
            return []
        own = np.array(looks.pop(fingerprint_id).hashes, np.uint64)
        close = _are_close(own, np.array([look.hashes for look in looks.values()], np.uint64))
        pairs = [sorted((one, fingerprint_id)) for one, is_close in zip(looks, close, strict=True) if is_close]
        return compare(self._session, np.array(pairs, np.int64).reshape(-1, 2))


def _are_close(own: HashArray, others: HashArray) -> Sequence[bool]:
    """Whether each row of hashes is near enough to be compared with these, as in a search."""
    bits = [np.bitwise_count(others[:, other] ^ own[one]) for one, other in SEARCHES]
    close: list[bool] = (np.min(bits, axis=0) <= HASH_DISTANCE).tolist()
    return close
