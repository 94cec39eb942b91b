"""Images of several datasets: measured once, and gone from a dataset with their source."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.snapshot import latest_snapshot, make_snapshot
from sdlora.store.dataset import Dataset
from sdlora.store.image_store import ImageStore
from sdlora.store.selection import Selection
from tests.stores import lose_all_bytes
from tests.unit.data.drawing import drawing, encoded, fill_folder

CONFIG = DataConfig(min_train_images=1, min_held_out_images=1)
MIRROR = CONFIG.model_copy(update={"mirror_sources": True})


@pytest.fixture
def ink(store: ImageStore) -> Dataset:
    return store.dataset("ink")


@pytest.fixture
def props(store: ImageStore) -> Dataset:
    return store.dataset("props")


def test_an_image_of_a_second_dataset_is_not_decoded_again(ink: Dataset, props: Dataset, folder: Path) -> None:
    collect(ink, str(fill_folder(folder, range(12))), CONFIG)
    assert clean(ink, CONFIG).decoded == 12
    collect(props, str(folder), CONFIG)
    heroes = ink.store.dataset("heroes")
    heroes.add_from(ink, Selection())
    lose_all_bytes(ink)  # whoever looks at an image now fails
    for dataset in (props, heroes):
        report = clean(dataset, CONFIG)
        assert (report.decoded, report.decided, report.counts.accepted) == (0, 12, 12)
        assert make_snapshot(dataset, CONFIG).digest == make_snapshot(ink, CONFIG).digest
        assert latest_snapshot(dataset) == latest_snapshot(ink)


def test_two_backgrounds_do_not_decode_an_image_by_turns(ink: Dataset, props: Dataset) -> None:
    clear = drawing(1).convert("RGBA")
    clear.putalpha(128)
    for dataset in (ink, props):
        dataset.add_image(encoded(clear))
        dataset.add_image(encoded(drawing(2)))
    on_black = CONFIG.model_copy(update={"background": "black"})
    decoded = [clean(dataset, config).decoded for dataset, config in ((ink, CONFIG), (props, on_black))]
    assert decoded == [2, 1]  # an opaque image has one decoding
    stricter = {"min_side_px": 40}
    for dataset, config in ((ink, CONFIG), (props, on_black), (ink, CONFIG)):
        report = clean(dataset, config.model_copy(update=stricter))
        assert (report.decoded, report.counts.accepted) == (0, 2)


def test_a_copy_in_one_dataset_is_no_copy_in_another(ink: Dataset, props: Dataset) -> None:
    large, small = encoded(drawing(1, side_px=96)), encoded(drawing(1))
    for content in (large, small):
        ink.add_image(content)
    props.add_image(small)
    assert clean(ink, CONFIG).counts.rejected_by == {"near_duplicate": 1}
    assert clean(props, CONFIG).counts.accepted == 1


def test_an_image_that_leaves_its_source_stays_in_the_dataset_unless_sources_are_mirrored(
    ink: Dataset, props: Dataset, folder: Path
) -> None:
    fill_folder(folder, range(4))
    for dataset in (ink, props):
        collect(dataset, str(folder), CONFIG)
    gone = folder / "0001.png"
    content = gone.read_bytes()
    gone.unlink()
    assert collect(ink, str(folder), CONFIG).left == 0
    report = collect(props, str(folder), MIRROR)
    assert (report.left, len(ink.images()), len(props.images())) == (1, 4, 3)
    assert ink.store.image_count() == 4
    assert collect(props, str(folder), MIRROR).left == 0
    gone.write_bytes(content)
    report = collect(props, str(folder), MIRROR)
    assert (report.new, report.left, len(props.images())) == (1, 0, 4)


def test_a_mirrored_image_stays_while_another_file_or_a_person_keeps_it(ink: Dataset, folder: Path) -> None:
    fill_folder(folder, range(3))
    for name in ("0000", "0001"):
        (folder / f"copy of {name}.png").write_bytes((folder / f"{name}.png").read_bytes())
    collect(ink, str(folder), MIRROR)
    scratch = ink.store.dataset("scratch")
    added = scratch.add_image((folder / "0002.png").read_bytes(), ["from elsewhere"])
    ink.add_from(scratch, Selection())
    for name in ("0000", "0002"):
        (folder / f"{name}.png").unlink()
    assert collect(ink, str(folder), MIRROR).left == 0
    assert len(ink.images()) == 3
    assert ink.image(added).captions == ("from elsewhere",)  # its own source's caption is gone with the file
    (folder / "copy of 0000.png").unlink()
    assert collect(ink, str(folder), MIRROR).left == 1


def test_a_copy_counts_again_when_the_kept_image_leaves_the_dataset(ink: Dataset) -> None:
    kept = ink.add_image(encoded(drawing(1, side_px=96)), ["large"])
    copy = ink.add_image(encoded(drawing(1)), ["small"])
    clean(ink, CONFIG)
    assert ink.image(copy).rejected_by == "near_duplicate"
    ink.remove(Selection(ids=(kept,)), "ana")
    report = clean(ink, CONFIG)
    assert (report.decoded, ink.image(copy).verdict, ink.image(kept).verdict) == (0, "accepted", None)
    ink.bring_back(Selection())
    clean(ink, CONFIG)
    assert (ink.image(copy).rejected_by, ink.image(kept).verdict) == ("near_duplicate", "accepted")


def test_a_removed_image_counts_no_longer_for_its_caption(ink: Dataset) -> None:
    rare = CONFIG.model_copy(update={"max_images_per_caption": 2})
    shas = [ink.add_image(encoded(drawing(seed)), ["a caption of three"]) for seed in range(3)]
    clean(ink, rare)
    assert {image.rejected_by for image in ink.images()} == {"caption_shared"}
    ink.remove(Selection(ids=(shas[0],)), "ana")
    clean(ink, rare)
    assert [(image.sha256, image.verdict) for image in ink.images()] == [(sha256, "accepted") for sha256 in shas[1:]]


def test_a_low_limit_of_one_dataset_is_no_pixels_for_a_person_to_accept(ink: Dataset, props: Dataset) -> None:
    """The other dataset has decoded the image; this one must not, as it would not alone."""
    sha256 = ink.add_image(encoded(drawing(1)))
    props.add_image(encoded(drawing(1)))
    low = CONFIG.model_copy(update={"max_pixels": 1000})
    clean(ink, CONFIG)
    clean(props, low)
    props.decide(sha256, "accepted", "I want it", "ana")
    clean(props, low)
    assert (props.image(sha256).rejected_by, ink.image(sha256).verdict) == ("pixel_count", "accepted")
    assert "I want it" in (props.image(sha256).reason or "")
