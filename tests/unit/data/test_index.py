from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdlora.data.duplicates.index import HammingIndex, scan


def _flipped(hashes: np.ndarray, bits: int, dice: np.random.Generator) -> np.ndarray:
    for _ in range(bits):
        hashes = hashes ^ (np.uint64(1) << dice.integers(0, 64, len(hashes)).astype(np.uint64))
    return hashes


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    size=st.integers(0, 3000),
    clusters=st.integers(1, 50),
    distance=st.integers(0, 11),
    crowd=st.booleans(),
)
def test_the_index_finds_exactly_what_comparing_with_each_hash_finds(seed, size, clusters, distance, crowd) -> None:
    dice = np.random.default_rng(seed)
    centres = dice.integers(0, 2**64, clusters, dtype=np.uint64)
    if crowd:  # all share a piece, as drawings on white do
        centres &= np.uint64(0xFFFF_FFFF_0000)
    hashes = _flipped(centres[dice.integers(0, clusters, size)], 6, dice)
    queries = _flipped(centres[dice.integers(0, clusters, 40)], 6, dice)
    who, which = HammingIndex(hashes).within(queries, distance)
    expected = [
        (one, other)
        for one, query in enumerate(queries.tolist())
        for other, hash_ in enumerate(hashes.tolist())
        if (query ^ hash_).bit_count() <= distance
    ]
    assert list(zip(who.tolist(), which.tolist(), strict=True)) == expected
    assert sorted(map(tuple, scan(hashes, queries, np.arange(40), distance).tolist())) == expected


def test_a_distance_that_the_index_cannot_guarantee_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 11 bits, not 12"):
        HammingIndex(np.zeros(3, np.uint64)).within(np.zeros(1, np.uint64), 12)
