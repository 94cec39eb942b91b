from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from sqlalchemy import delete, func, select

from sdlora.data.config import DataConfig
from sdlora.data.duplicates import pairs as pairs_module
from sdlora.data.duplicates.fingerprint import VERSION, Fingerprint, fingerprint
from sdlora.data.duplicates.pairs import FingerprintCache, compare
from sdlora.store.dataset import Dataset
from sdlora.store.tables.images import FingerprintTable, SimilarPairTable
from tests.unit.data.drawing import icon

LIMIT = DataConfig().near_duplicate_difference
SEEDS = [1, 2, 3, 1, 2, 1]


def record(dataset: Dataset, looks: list[Fingerprint]) -> list[int]:
    with dataset.store.write() as session:
        rows = [
            FingerprintTable(
                pixels_sha256=f"{number:064}",
                version=VERSION,
                hashes=np.array(look.hashes, ">u8").tobytes(),
                aspect=look.aspect,
                thumbnail=look.thumbnail,
            )
            for number, look in enumerate(looks)
        ]
        session.add_all(rows)
        session.flush()
        return [row.id for row in rows]


def test_looks_that_are_kept_in_memory_find_the_pairs_that_read_ones_do(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = record(dataset, [fingerprint(icon(seed, side_px=64 + place)) for place, seed in enumerate(SEEDS)])
    pairs = np.array(list(combinations(ids, 2)))
    expected = {(ids[a], ids[b]) for a, b in combinations(range(len(SEEDS)), 2) if SEEDS[a] == SEEDS[b]}
    with dataset.store.write() as session:
        read = compare(session, pairs)
    assert {(first, second) for first, second, difference in read if difference < LIMIT} == expected
    for kept in (100, 2):
        monkeypatch.setattr(pairs_module, "_MAX_CACHED_FINGERPRINTS", kept)
        cache = FingerprintCache()
        with dataset.store.write() as session:
            one_by_one = [found for pair in pairs for found in compare(session, pair[None], cache=cache)]
        assert one_by_one == read


def test_a_look_that_was_taken_away_meanwhile_makes_no_pair(dataset: Dataset) -> None:
    ids = record(dataset, [fingerprint(icon(1, side_px=64 + place)) for place in range(3)])
    pairs, cache = np.array(list(combinations(ids, 2))), FingerprintCache()
    with dataset.store.write() as session:
        assert len(compare(session, pairs, cache=cache)) == 3
    with dataset.store.write() as session:
        session.execute(delete(SimilarPairTable))
        session.execute(delete(FingerprintTable).where(FingerprintTable.id == ids[1]))
    with dataset.store.write() as session:
        assert [found[:2] for found in compare(session, pairs, cache=cache)] == [(ids[0], ids[2])]
        assert session.scalar(select(func.count()).select_from(SimilarPairTable)) == 1


def test_an_id_that_was_given_again_means_the_image_that_has_it_now(dataset: Dataset) -> None:
    ids = record(dataset, [fingerprint(icon(1)), fingerprint(icon(1, side_px=65))])
    pairs, cache = np.array([ids]), FingerprintCache()
    with dataset.store.write() as session:
        assert compare(session, pairs, cache=cache)[0][2] < LIMIT
    other = fingerprint(icon(7))
    with dataset.store.write() as session:
        session.execute(delete(SimilarPairTable))
        row = session.get_one(FingerprintTable, ids[1])
        row.pixels_sha256, row.thumbnail, row.aspect = "f" * 64, other.thumbnail, other.aspect
    with dataset.store.write() as session:
        assert all(difference > LIMIT for _, _, difference in compare(session, pairs, cache=cache))
