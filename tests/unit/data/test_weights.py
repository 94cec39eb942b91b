"""How often training shows an image: what its folder asks for, times what people think of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sdlora.data.changes import changes_since_snapshot, compare_snapshots
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.snapshot import Snapshot, load_snapshot, make_snapshot, snapshot_digest
from sdlora.data.weights import weight_of_stars
from sdlora.store.dataset import Dataset
from tests.stores import both_places
from tests.unit.data.drawing import drawing, encoded

CONFIG = DataConfig(min_train_images=4, min_held_out_images=2, held_out_fraction=0.5)
UNWEIGHTED = CONFIG.model_copy(update={"weight_by": ()})


@pytest.mark.parametrize(
    ("stars", "weight"),
    [(1, 0.25), (2, 0.5), (3, 1), (4, 2), (5, 4), (3.5, 1), (2.5, 1), (4.5, 2), (1.4, 0.25), (3.6, 2), (4.9, 4)],
)
def test_each_star_above_three_doubles_and_each_below_halves(stars: float, weight: float) -> None:
    assert weight_of_stars(stars) == weight


def _fill(folder: Path, name: str, seeds: range) -> None:
    (folder / name).mkdir()
    for seed in seeds:
        (folder / name / f"{seed}.png").write_bytes(encoded(drawing(seed)))


def _freeze(dataset: Dataset, folder: Path, config: DataConfig = CONFIG) -> Snapshot:
    collect(dataset, str(folder), config)
    clean(dataset, config)
    return make_snapshot(dataset, config)


@both_places
def test_repeats_of_a_folder_weigh_its_training_images_and_no_held_out_one(dataset: Dataset, folder: Path) -> None:
    _fill(folder, "3_dog", range(20))
    _fill(folder, "cat", range(20, 28))
    snapshot = _freeze(dataset, folder)
    dogs = {image.sha256 for image in dataset.images() if "3_dog" in image.files[0]}
    assert {row.weight for row in snapshot.train if row.sha256 in dogs} == {3.0}
    assert {row.weight for row in snapshot.train if row.sha256 not in dogs} == {1.0}
    assert any(row.sha256 in dogs for row in snapshot.held_out)
    assert {row.weight for row in snapshot.held_out} == {1.0}
    assert load_snapshot(dataset.store, snapshot.digest) == snapshot
    assert not changes_since_snapshot(dataset).any
    row = next(row for row in snapshot.train if row.sha256 in dogs)
    (appearance,) = dataset.details(row.sha256).appearances
    assert appearance.weight == 3.0


def test_without_weights_the_digest_is_what_it_was_before_there_were_any(dataset: Dataset, folder: Path) -> None:
    _fill(folder, "3_dog", range(20))
    weighted = _freeze(dataset, folder)
    plain = make_snapshot(dataset, UNWEIGHTED)
    # As the first version wrote it: one line of JSON per row, without a word of weights.
    assert plain.digest == snapshot_digest([replace(row, weight=1.0) for row in weighted.rows]) != weighted.digest
    assert {row.weight for row in plain.rows} == {1.0}
    assert compare_snapshots(plain, weighted).reweighted == tuple(row.sha256 for row in weighted.train)
    assert compare_snapshots(plain, weighted).recaptioned == ()


def test_a_renamed_folder_counts_at_once(dataset: Dataset, folder: Path) -> None:
    _fill(folder, "10_dog", range(20))
    assert {row.weight for row in _freeze(dataset, folder).train} == {10.0}
    (folder / "10_dog").rename(folder / "2_dog")
    assert {row.weight for row in _freeze(dataset, folder).train} == {2.0}


@both_places
def test_ratings_multiply_the_repeats_and_can_be_taken_back(dataset: Dataset, folder: Path) -> None:
    _fill(folder, "3_dog", range(20))
    before = _freeze(dataset, folder)
    liked, disliked, torn = (row.sha256 for row in before.train[:3])
    dataset.store.rate(liked, 5, "ana")
    dataset.store.rate(disliked[:12], 1, "ana", "blurred")
    dataset.store.rate(torn, 5, "ana")
    dataset.store.rate(torn, 1, "ben")
    dataset.store.rate(before.held_out[0].sha256, 5, "ana")
    assert changes_since_snapshot(dataset).reweighted == tuple(sorted((liked, disliked)))
    after = make_snapshot(dataset, CONFIG)
    weights = {row.sha256: row.weight for row in after.rows}
    assert (weights[liked], weights[disliked], weights[torn]) == (12.0, 0.75, 3.0)
    assert {row.weight for row in after.held_out} == {1.0}
    assert after.digest != before.digest
    only_repeats = CONFIG.model_copy(update={"weight_by": ("repeats",)})
    assert make_snapshot(dataset, only_repeats) == before
    dataset.store.undo_rating(liked, "ana")
    dataset.store.undo_rating(disliked, "ana")
    assert make_snapshot(dataset, CONFIG) == before
