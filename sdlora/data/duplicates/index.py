"""Exact search of 64-bit hashes by Hamming distance, fast for millions of hashes."""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
import numpy.typing as npt

from sdlora.data.arrays import HashArray, IntArray

_PIECES_PER_HASH = 4
_BITS_PER_PIECE = 16
_SCAN_FACTOR = 4  # a query that would visit more than a quarter of the hashes scans all of them instead
_VISITS_PER_CHUNK = 2_000_000  # of hashes: some 50 MB
_COMPARISONS_PER_CHUNK = 4_000_000


class HammingIndex:
    """Index by multi-index hashing: each hash is filed under its four 16-bit pieces.

    If two hashes differ in at most 11 bits, at least one of their pieces differs in at most 2 bits. Lookup of the 137
    nearest values of each piece therefore finds every match. A million hashes take 32 MB.

    Source: Norouzi, Punjani, Fleet 2012, "Fast search in Hamming space with multi-index hashing".
    """

    def __init__(self, hashes: HashArray) -> None:
        self._hashes = np.ascontiguousarray(hashes)
        self._order, self._starts = [], []
        for piece in _pieces(self._hashes):
            # A stable sort of 16-bit numbers is a radix sort.
            self._order.append(np.argsort(piece, kind="stable").astype(np.int32))
            counts = np.bincount(piece, minlength=1 << _BITS_PER_PIECE)
            self._starts.append(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))

    def within(self, queries: HashArray, distance: int) -> tuple[IntArray, IntArray]:
        """Find all (position in queries, position in the index) whose hashes differ in at most `distance` bits.

        Raises:
            ValueError: `distance` is above 11.
        """
        if distance >= _PIECES_PER_HASH * 3:
            raise ValueError(f"The index finds hashes that differ in at most 11 bits, not {distance}.")
        piece_distance = distance // _PIECES_PER_HASH
        values = np.stack(_pieces(queries), axis=1)[:, :, None] ^ _near_zero(piece_distance)  # (Q, 4, V)
        sizes = np.stack([np.diff(starts)[values[:, piece]] for piece, starts in enumerate(self._starts)], axis=1)
        visits = sizes.sum(axis=(1, 2))
        needs_scan = visits * _SCAN_FACTOR > len(self._hashes)
        pair_chunks = [scan(self._hashes, queries, np.flatnonzero(needs_scan), distance)]
        for chunk in _query_chunks(np.flatnonzero(~needs_scan), visits):
            pair_chunks += [
                self._visit(piece, queries, chunk, values[chunk, piece], sizes[chunk, piece], distance)
                for piece in range(_PIECES_PER_HASH)
            ]
        pairs = np.unique(np.concatenate(pair_chunks), axis=0)
        return pairs[:, 0], pairs[:, 1]

    def _visit(
        self,
        piece: int,
        queries: HashArray,
        query_positions: IntArray,
        values: IntArray,
        sizes: IntArray,
        distance: int,
    ) -> IntArray:
        """Return the pairs (N, 2) found in the buckets `values` of one piece."""
        sizes, starts = sizes.ravel(), self._starts[piece][values].ravel()
        # The positions starts[b], starts[b] + 1, ... of every bucket b, one after the other.
        offsets = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        members = self._order[piece][np.repeat(starts, sizes) + offsets]
        query_of_member = np.repeat(np.repeat(query_positions, values.shape[1]), sizes)
        near = np.bitwise_count(self._hashes[members] ^ queries[query_of_member]) <= distance
        return np.stack([query_of_member[near], members[near]], axis=1).astype(np.int64)


def scan(hashes: HashArray, queries: HashArray, query_positions: IntArray, distance: int) -> IntArray:
    """Find the pairs (N, 2) of these queries with hashes at most `distance` bits away, by comparing all."""
    pair_chunks = [np.empty((0, 2), np.int64)]
    step = max(1, _COMPARISONS_PER_CHUNK // max(1, len(hashes)))
    for start in range(0, len(query_positions), step):
        chunk = query_positions[start : start + step]
        near = np.bitwise_count(queries[chunk, None] ^ hashes) <= distance
        row, member = np.divmod(np.flatnonzero(near), max(1, len(hashes)))  # numpy's nonzero is slow in 2-D
        pair_chunks.append(np.stack([chunk[row], member], axis=1))
    return np.concatenate(pair_chunks)


def _query_chunks(query_positions: IntArray, visits: IntArray) -> list[IntArray]:
    """Split queries into chunks that visit some two million hashes each."""
    if not len(query_positions):
        return []
    return np.split(
        query_positions, np.flatnonzero(np.diff(np.cumsum(visits[query_positions]) // _VISITS_PER_CHUNK)) + 1
    )


def _pieces(hashes: HashArray) -> list[IntArray]:
    mask = np.uint64((1 << _BITS_PER_PIECE) - 1)
    return [((hashes >> np.uint64(_BITS_PER_PIECE * k)) & mask).astype(np.uint16) for k in range(_PIECES_PER_HASH)]


@cache
def _near_zero(distance: int) -> npt.NDArray[np.uint16]:
    """Return all 16-bit numbers with at most `distance` bits set."""
    return np.array(
        [
            sum(1 << bit for bit in bits)
            for size in range(distance + 1)
            for bits in combinations(range(_BITS_PER_PIECE), size)
        ],
        np.uint16,
    )
