from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import permutations
from pathlib import Path

import pytest
from PIL import Image

from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.duplicates.groups import Candidate, Copy, copy_rulings
from sdlora.data.snapshot import make_snapshot
from sdlora.store.dataset import Dataset
from sdlora.store.lineage import record_version
from sdlora.store.records import Caption, Origin, captions_of_group
from tests.stores import opened_dataset, servers_when_patient
from tests.unit.data.drawing import drawing, encoded, fill_folder, icon

CONFIG = DataConfig(min_train_images=1, min_held_out_images=1)


def _files(original: Image.Image) -> dict[str, bytes]:
    """Files of one picture, the best first."""
    width, height = original.size
    return {
        "original": encoded(original),
        "jpeg": encoded(original, "JPEG", quality=92),
        "recompressed": encoded(original, "JPEG", quality=50),
        "half": encoded(original.resize((width // 2, height // 2), Image.Resampling.LANCZOS)),
    }


FILES = _files(drawing(1, side_px=96))


def _kept(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {image.sha256: image.captions for image in dataset.images("accepted")}


NewStore = Callable[[], AbstractContextManager[Dataset]]


@pytest.fixture
def new_store(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> NewStore:
    def new() -> AbstractContextManager[Dataset]:
        home = tmp_path_factory.mktemp("home")
        shutil.copy(empty_database, home)
        return opened_dataset(home)

    return new


def test_the_better_file_is_kept_whichever_came_first(dataset: Dataset) -> None:
    orders = list(permutations(_files(drawing(0)), 3))
    files = [_files(drawing(seed, side_px=96)) for seed in range(len(orders))]
    for arrivals in (slice(0, 2), slice(2, 3)):  # the last one is decided together with those before it
        for order, contents in zip(orders, files, strict=True):
            for name in order[arrivals]:
                dataset.add_image(contents[name])
        clean(dataset, CONFIG)
    best = [contents[min(order, key=list(contents).index)] for order, contents in zip(orders, files, strict=True)]
    assert set(_kept(dataset)) == {hashlib.sha256(content).hexdigest() for content in best}


def test_of_equally_good_files_the_order_of_arrival_decides_nothing(new_store: NewStore) -> None:
    contents = [encoded(icon(1)), encoded(icon(1), "TIFF"), encoded(icon(1), compress_level=0)]
    kept = set()
    for order in permutations(contents):
        with new_store() as dataset:
            for content in order:
                dataset.add_image(content)
            clean(dataset, CONFIG)
            kept |= set(_kept(dataset))
    assert len(kept) == 1


@servers_when_patient
def test_a_caption_of_the_copy_counts_for_the_original_that_has_only_a_name(dataset: Dataset, folder: Path) -> None:
    (folder / "IMG_1234.png").write_bytes(FILES["original"])
    collect(dataset, str(folder), CONFIG)
    copy = dataset.add_image(FILES["recompressed"], ["a red bird on a wire"])
    clean(dataset, CONFIG)
    (image,) = dataset.images("accepted")
    assert (image.format, image.captions) == ("PNG", ("a red bird on a wire",))
    assert dataset.images(caption="red bird") == dataset.images()
    captions = dataset.details(image.sha256).captions
    assert [(caption.text, caption.copy, caption.counts) for caption in captions] == [
        ("IMG 1234", None, False),
        ("a red bird on a wire", copy, True),
    ]
    dataset.set_captions(copy, ["a blue bird"])
    clean(dataset, CONFIG)
    assert dataset.images("accepted")[0].captions == ("a blue bird",)


def _caption(text: str, origin: Origin = "metadata") -> Caption:
    return Caption(text, origin)


def test_near_copies_lend_a_caption_only_to_an_image_without_one_as_good() -> None:
    name, written, other = _caption("IMG 1", "file_name"), _caption("a bird"), _caption("a bird, framed", "sidecar")
    assert captions_of_group([name], [other]) == ("a bird, framed",)
    assert captions_of_group([], [name]) == ("IMG 1",)
    assert captions_of_group([written], [other]) == ("a bird",)
    assert captions_of_group([written], [other, _caption("corrected", "edited")]) == ("corrected",)
    assert captions_of_group([name], [_caption("IMG 2", "file_name")]) == ("IMG 1",)
    assert captions_of_group([], []) == ()


def test_captions_of_the_same_pixels_are_all_used_as_those_of_the_same_bytes_are(dataset: Dataset) -> None:
    dataset.add_image(encoded(icon(1)), ["a sign"])
    dataset.add_image(encoded(icon(1), "BMP"), ["a black sign"])
    clean(dataset, CONFIG)
    assert [sorted(captions) for captions in _kept(dataset).values()] == [["a black sign", "a sign"]]


def test_a_group_ends_with_the_same_snapshot_in_any_order_and_portions(new_store: NewStore, folder: Path) -> None:
    captions = {"original": [], "jpeg": ["written for the JPEG"], "recompressed": ["written for the copy"]}
    fill_folder(folder, range(10, 14))
    snapshots = []
    for number, order in enumerate(permutations(captions)):
        with new_store() as dataset:
            collect(dataset, str(folder), CONFIG)
            for name in order:
                dataset.add_image(FILES[name], captions[name])
                if number % 2:
                    clean(dataset, CONFIG)
            clean(dataset, CONFIG)
            snapshots.append(make_snapshot(dataset, CONFIG))
    assert len({snapshot.digest for snapshot in snapshots}) == 1
    assert {"written for the JPEG", "written for the copy"} in [set(row.captions) for row in snapshots[0].rows]


def test_a_copy_that_a_person_keeps_or_rejects_lends_no_caption(dataset: Dataset) -> None:
    original = dataset.add_image(FILES["original"])
    copy = dataset.add_image(FILES["recompressed"], ["a caption"])
    for verdict in ("accepted", "rejected"):
        clean(dataset, CONFIG)
        assert dataset.image(original).captions == ("a caption",)
        dataset.decide(copy, verdict, "on its own", "ana")
        clean(dataset, CONFIG)
        if verdict == "rejected":
            assert _kept(dataset) == {original: ()}
        dataset.undo_decision(copy, "ana")


def test_a_takedown_of_the_copy_takes_its_caption_along_and_names_the_versions_that_learnt_it(
    dataset: Dataset, tmp_path: Path
) -> None:
    fill_folder(tmp_path / "others", range(10, 18))
    collect(dataset, str(tmp_path / "others"), CONFIG)
    original = dataset.add_image(FILES["original"])
    copy = dataset.add_image(FILES["recompressed"], ["ana's own words"])
    clean(dataset, CONFIG)
    snapshot = make_snapshot(dataset, CONFIG)
    is_trained = original in {row.sha256 for row in snapshot.train}
    with dataset.store.write() as session:
        record_version(session, "style", 1, "0" * 64, snapshot.digest)
    purged = dataset.store.purge(copy, "asked for", "ana").lineage
    assert purged.kept_for == (original,)
    assert [version.label for version in purged.trained_versions] == ["style version 1"] * is_trained
    assert [lent.snapshot.digest for lent in purged.lent_captions] == [snapshot.digest]
    clean(dataset, CONFIG)
    assert dataset.image(original).captions == ()
    assert "ana's own words" not in {text for row in make_snapshot(dataset, CONFIG).rows for text in row.captions}


def test_a_better_copy_takes_over_the_side_of_the_image_that_it_replaces(dataset: Dataset, tmp_path: Path) -> None:
    seeds = range(20, 44)
    first = {seed: dataset.add_image(encoded(drawing(seed), "JPEG", quality=95)) for seed in seeds}
    clean(dataset, CONFIG)
    before = {row.sha256: row.split for row in make_snapshot(dataset, CONFIG).rows}
    better = {seed: dataset.add_image(encoded(drawing(seed))) for seed in seeds}
    clean(dataset, CONFIG)
    after = {row.sha256: row.split for row in make_snapshot(dataset, CONFIG).rows}
    assert after == {better[seed]: before[first[seed]] for seed in seeds}
    assert set(after.values()) == {"train", "held_out"}


def test_an_image_of_a_snapshot_is_not_replaced_by_one_that_is_only_as_good(dataset: Dataset, folder: Path) -> None:
    collect(dataset, str(fill_folder(folder, range(10, 14))), CONFIG)
    for seed in range(6):
        dataset.add_image(encoded(icon(seed), compress_level=1))
    clean(dataset, CONFIG)
    before = make_snapshot(dataset, CONFIG)
    for seed in range(6):
        dataset.add_image(encoded(icon(seed), compress_level=9))
    assert clean(dataset, CONFIG).counts.rejected_by == {"exact_duplicate": 6}
    assert make_snapshot(dataset, CONFIG) == before


def test_the_reason_of_a_pair_close_to_the_threshold_says_that_it_is_unsure() -> None:
    kept = Candidate(1, "a" * 64, 1, 100)
    reasons = [copy_rulings(Copy(kept, difference, exact=False), CONFIG)[1].reason for difference in (3.0, 15.9, 17.0)]
    assert ["unsure" in (reason or "") for reason in reasons] == [False, False, True]
