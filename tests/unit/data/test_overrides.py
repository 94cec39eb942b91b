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
from sdlora.store.image_store import ImageStore
from tests.stores import both_places
from tests.unit.data.drawing import drawing, fill_folder

pytestmark = both_places
CONFIG = DataConfig(min_train_images=1, min_held_out_images=1)


def by_name(store: ImageStore) -> dict[str, str]:
    return {image.files[0].rpartition("/")[2]: image.sha256 for image in store.images()}


def test_an_override_survives_cleaning_and_new_thresholds(store: ImageStore, folder: Path) -> None:
    collect(store, str(fill_folder(folder, range(6))), CONFIG)
    clean(store, CONFIG)
    good, small = by_name(store)["0000.png"], by_name(store)["0001.png"]
    strict = CONFIG.model_copy(update={"min_side_px": 65})
    store.decide(good, "rejected", "not ours", "ana")
    store.decide(small, "accepted", "small is fine here", "ana")
    for config in (CONFIG, strict, strict):
        clean(store, config)
        assert store.image(good).rejected_by == "person"
        assert store.image(small).verdict == "accepted"
    assert {image.sha256 for image in store.images("accepted")} == {small}
    assert "small is fine here" in (store.image(small).reason or "")
    store.undo_decision(small, "ana")
    clean(store, strict)
    assert store.image(small).rejected_by == "too_small"


def test_which_copy_is_kept_follows_a_persons_word(store: ImageStore, folder: Path) -> None:
    fill_folder(folder, range(4))
    drawing(0, side_px=96).save(folder / "larger.png")
    collect(store, str(folder), CONFIG)
    clean(store, CONFIG)
    larger, copy = by_name(store)["larger.png"], by_name(store)["0000.png"]
    assert store.image(copy).rejected_by == "near_duplicate"

    def verdicts() -> tuple[str | None, str | None]:
        clean(store, CONFIG)
        return store.image(larger).rejected_by, store.image(copy).rejected_by

    store.decide(copy, "accepted", "the sharper one", "ana")
    assert verdicts() == ("near_duplicate", None)
    store.decide(larger, "accepted", "both are wanted", "ana")
    assert verdicts() == (None, None)
    store.undo_decision(copy, "ana")
    assert verdicts() == (None, "near_duplicate")
    store.decide(larger, "rejected", "a watermark", "ana")
    assert verdicts() == ("person", None)


def test_a_word_taken_back_lets_the_checks_decide_at_once_as_cleaning_would(store: ImageStore, folder: Path) -> None:
    fill_folder(folder, range(4))
    drawing(0, side_px=96).save(folder / "larger.png")
    drawing(7, side_px=16).save(folder / "small.png")
    collect(store, str(folder), CONFIG)
    clean(store, CONFIG)
    shas = by_name(store)
    checked = {sha256: (image.verdict, image.reason) for sha256 in shas.values() for image in [store.image(sha256)]}
    store.decide(shas["larger.png"], "rejected", "a watermark", "ana")
    store.decide(shas["small.png"], "accepted", "small is fine", "ana")
    clean(store, CONFIG)
    assert store.image(shas["0000.png"]).verdict == "accepted"  # its look-alike is no longer the better one
    for sha256 in shas.values():
        store.blobs.remove(sha256)  # no file is opened
    small = undo_decision(store, shas["small.png"], "ana", CONFIG)
    assert (small.verdict, small.rejected_by) == ("rejected", "too_small")
    assert undo_decision(store, shas["larger.png"][:12], "ana", CONFIG).verdict == "accepted"
    after = {sha256: (image.verdict, image.reason) for sha256 in shas.values() for image in [store.image(sha256)]}
    assert after == checked
    assert clean(store, CONFIG).decided == 0


def test_a_word_taken_back_waits_for_cleaning_where_the_records_do_not_suffice(store: ImageStore, folder: Path) -> None:
    collect(store, str(fill_folder(folder, range(2))), CONFIG)
    never_seen, other = by_name(store).values()
    store.decide(never_seen, "rejected", "not ours", "ana")
    assert undo_decision(store, never_seen, "ana", CONFIG).verdict is None
    clean(store, CONFIG)
    store.decide(other, "rejected", "not ours", "ana")
    strict = CONFIG.model_copy(update={"min_side_px": 65})  # nobody was judged by these settings
    assert undo_decision(store, other, "ana", strict).verdict is None
    clean(store, CONFIG)
    assert store.counts().accepted == 2


def test_an_image_without_pixels_cannot_be_accepted(store: ImageStore, folder: Path) -> None:
    fill_folder(folder, range(2))
    (folder / "torn.png").write_bytes((folder / "0000.png").read_bytes()[:100])
    collect(store, str(folder), CONFIG)
    clean(store, CONFIG)
    with pytest.raises(DataError, match="no pixels to train on"):
        store.decide(by_name(store)["torn.png"], "accepted", "looks fine to me", "ana")


def test_a_purged_image_is_never_looked_at_or_trained_on_again(store: ImageStore, folder: Path) -> None:
    collect(store, str(fill_folder(folder, range(12))), CONFIG)
    clean(store, CONFIG)
    before = make_snapshot(store, CONFIG)
    gone = before.train[0].sha256
    store.purge(gone, "a takedown", "ana")
    # Other thresholds, and pixels that have to be measured anew: neither may ask for the bytes that are gone.
    for config in (CONFIG, CONFIG.model_copy(update={"min_side_px": 40})):
        clean(store, config)
        after = make_snapshot(store, config)
        assert {row.sha256 for row in before.rows} - {row.sha256 for row in after.rows} == {gone}
    assert store.image(gone).rejected_by == "purged"


def test_copies_of_a_purged_image_do_not_take_its_place_unless_a_person_says_so(
    store: ImageStore, folder: Path
) -> None:
    fill_folder(folder, range(4))
    drawing(0, side_px=96).save(folder / "larger.png")
    collect(store, str(folder), CONFIG)
    clean(store, CONFIG)
    larger, copy = by_name(store)["larger.png"], by_name(store)["0000.png"]
    assert store.purge(larger, "a takedown", "ana").copies == (copy,)
    clean(store, CONFIG)
    assert store.image(copy).rejected_by == "person"
    assert f"looks like image {larger[:12]}, which was purged: a takedown" in (store.image(copy).reason or "")
    store.undo_decision(copy, "ana")
    clean(store, CONFIG)
    assert store.image(copy).verdict == "accepted"
