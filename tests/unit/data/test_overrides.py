"""A person's word against the checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdlora.core.errors import DataError
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.decide_images import undo_decision
from sdlora.data.snapshot import make_snapshot
from sdlora.store.dataset import Dataset
from tests.stores import both_places
from tests.unit.data.drawing import drawing, fill_folder

pytestmark = both_places
CONFIG = DataConfig(min_train_images=1, min_held_out_images=1)


def by_name(dataset: Dataset) -> dict[str, str]:
    return {image.files[0].rpartition("/")[2]: image.sha256 for image in dataset.images()}


def test_an_override_survives_cleaning_and_new_thresholds(dataset: Dataset, folder: Path) -> None:
    collect(dataset, str(fill_folder(folder, range(6))), CONFIG)
    clean(dataset, CONFIG)
    good, small = by_name(dataset)["0000.png"], by_name(dataset)["0001.png"]
    strict = CONFIG.model_copy(update={"min_side_px": 65})
    dataset.decide(good, "rejected", "not ours", "ana")
    dataset.decide(small, "accepted", "small is fine here", "ana")
    for config in (CONFIG, strict, strict):
        clean(dataset, config)
        assert dataset.image(good).rejected_by == "person"
        assert dataset.image(small).verdict == "accepted"
    assert {image.sha256 for image in dataset.images("accepted")} == {small}
    assert "small is fine here" in (dataset.image(small).reason or "")
    dataset.undo_decision(small, "ana")
    clean(dataset, strict)
    assert dataset.image(small).rejected_by == "too_small"


def test_which_copy_is_kept_follows_a_persons_word(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(4))
    drawing(0, side_px=96).save(folder / "larger.png")
    collect(dataset, str(folder), CONFIG)
    clean(dataset, CONFIG)
    larger, copy = by_name(dataset)["larger.png"], by_name(dataset)["0000.png"]
    assert dataset.image(copy).rejected_by == "near_duplicate"

    def verdicts() -> tuple[str | None, str | None]:
        clean(dataset, CONFIG)
        return dataset.image(larger).rejected_by, dataset.image(copy).rejected_by

    dataset.decide(copy, "accepted", "the sharper one", "ana")
    assert verdicts() == ("near_duplicate", None)
    dataset.decide(larger, "accepted", "both are wanted", "ana")
    assert verdicts() == (None, None)
    dataset.undo_decision(copy, "ana")
    assert verdicts() == (None, "near_duplicate")
    dataset.decide(larger, "rejected", "a watermark", "ana")
    assert verdicts() == ("person", None)


def test_a_word_taken_back_lets_the_checks_decide_at_once_as_cleaning_would(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(4))
    drawing(0, side_px=96).save(folder / "larger.png")
    drawing(7, side_px=16).save(folder / "small.png")
    collect(dataset, str(folder), CONFIG)
    clean(dataset, CONFIG)
    shas = by_name(dataset)
    checked = {sha256: (image.verdict, image.reason) for sha256 in shas.values() for image in [dataset.image(sha256)]}
    dataset.decide(shas["larger.png"], "rejected", "a watermark", "ana")
    dataset.decide(shas["small.png"], "accepted", "small is fine", "ana")
    clean(dataset, CONFIG)
    assert dataset.image(shas["0000.png"]).verdict == "accepted"  # its look-alike is no longer the better one
    for sha256 in shas.values():
        dataset.store.blobs.remove(sha256)  # no file is opened
    small = undo_decision(dataset, shas["small.png"], "ana", CONFIG)
    assert (small.verdict, small.rejected_by) == ("rejected", "too_small")
    assert undo_decision(dataset, shas["larger.png"][:12], "ana", CONFIG).verdict == "accepted"
    after = {sha256: (image.verdict, image.reason) for sha256 in shas.values() for image in [dataset.image(sha256)]}
    assert after == checked
    assert clean(dataset, CONFIG).decided == 0


def test_a_word_taken_back_waits_for_cleaning_where_the_records_do_not_suffice(dataset: Dataset, folder: Path) -> None:
    collect(dataset, str(fill_folder(folder, range(2))), CONFIG)
    never_seen, other = by_name(dataset).values()
    dataset.decide(never_seen, "rejected", "not ours", "ana")
    assert undo_decision(dataset, never_seen, "ana", CONFIG).verdict is None
    clean(dataset, CONFIG)
    dataset.decide(other, "rejected", "not ours", "ana")
    strict = CONFIG.model_copy(update={"min_side_px": 65})  # nobody was judged by these settings
    assert undo_decision(dataset, other, "ana", strict).verdict is None
    clean(dataset, CONFIG)
    assert dataset.counts().accepted == 2


def test_an_image_without_pixels_cannot_be_accepted(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(2))
    (folder / "torn.png").write_bytes((folder / "0000.png").read_bytes()[:100])
    collect(dataset, str(folder), CONFIG)
    clean(dataset, CONFIG)
    with pytest.raises(DataError, match="no pixels to train on"):
        dataset.decide(by_name(dataset)["torn.png"], "accepted", "looks fine to me", "ana")


def test_a_purged_image_is_never_looked_at_or_trained_on_again(dataset: Dataset, folder: Path) -> None:
    collect(dataset, str(fill_folder(folder, range(12))), CONFIG)
    clean(dataset, CONFIG)
    before = make_snapshot(dataset, CONFIG)
    gone = before.train[0].sha256
    dataset.store.purge(gone, "a takedown", "ana")
    # Other thresholds, and pixels that have to be measured anew: neither may ask for the bytes that are gone.
    for config in (CONFIG, CONFIG.model_copy(update={"min_side_px": 40})):
        clean(dataset, config)
        after = make_snapshot(dataset, config)
        assert {row.sha256 for row in before.rows} - {row.sha256 for row in after.rows} == {gone}
    assert dataset.image(gone).rejected_by == "purged"


def test_copies_of_a_purged_image_do_not_take_its_place_unless_a_person_says_so(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(4))
    drawing(0, side_px=96).save(folder / "larger.png")
    collect(dataset, str(folder), CONFIG)
    clean(dataset, CONFIG)
    larger, copy = by_name(dataset)["larger.png"], by_name(dataset)["0000.png"]
    assert dataset.store.purge(larger, "a takedown", "ana").copies == (copy,)
    clean(dataset, CONFIG)
    assert dataset.image(copy).rejected_by == "person"
    assert f"looks like image {larger[:12]}, which was purged: a takedown" in (dataset.image(copy).reason or "")
    dataset.undo_decision(copy, "ana")
    clean(dataset, CONFIG)
    assert dataset.image(copy).verdict == "accepted"
