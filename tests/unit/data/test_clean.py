from __future__ import annotations

import random
import zlib
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from sdlora.core.errors import DataError
from sdlora.data import clean as cleaning
from sdlora.data.checks import CHECKS
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.duplicates import clusters, search
from sdlora.store import clusters as store_clusters
from sdlora.store import curation
from sdlora.store.dataset import Dataset
from sdlora.store.records import ImageRecord
from tests.stores import lose_all_bytes, opened_dataset, servers_when_patient
from tests.unit.data.drawing import drawing, encoded, fill_folder, icon

CONFIG = DataConfig()


def _with(**settings: object) -> DataConfig:
    return CONFIG.model_copy(update=settings)


def _by_name(dataset: Dataset) -> dict[str, ImageRecord]:
    return {Path(file).name: image for image in dataset.images() for file in image.files}


def _bomb() -> bytes:
    """A valid PNG header that promises 40,000 x 40,000 pixels."""
    content = bytearray(encoded(Image.new("1", (1, 1))))
    content[16:24] = (40_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def _bad_files() -> dict[str, bytes]:
    frames = [drawing(seed) for seed in (500, 501)]
    return {
        "text.png": b"this is text",
        "empty.png": b"",
        "cut.png": encoded(drawing(502))[:-300],
        "cut.jpg": encoded(drawing(503), "JPEG")[:-300],
        "bomb.png": _bomb(),
        "moving.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "tiny.png": encoded(drawing(504, side_px=5)),
        "blank.png": encoded(Image.new("RGB", (64, 64), (250, 250, 250))),
        "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }


EXPECTED = {
    "text.png": ("unreadable", "cannot be read: the bytes are text"),
    "empty.png": ("unreadable", "the file is empty"),
    "cut.png": ("unreadable", "cannot be read"),
    "cut.jpg": ("unreadable", "cut short"),
    "bomb.png": ("pixel_count", "1,600,000,000 pixels, more than max_pixels = 64,000,000"),
    "moving.gif": ("animated", "allow_animated"),
    "tiny.png": ("too_small", "5 px, fewer than min_side_px = 32"),
    "blank.png": ("blank", "less than min_contrast = 4"),
    "drawing.svg": ("unreadable", "an SVG drawing"),
}


@servers_when_patient
def test_every_image_has_a_verdict_and_a_reason_in_words(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(10))
    for name, content in _bad_files().items():
        (folder / name).write_bytes(content)
    collect(dataset, str(folder), CONFIG)
    report = clean(dataset, CONFIG)
    images = _by_name(dataset)
    assert {name: images[name].rejected_by for name in EXPECTED} == {
        name: check for name, (check, _) in EXPECTED.items()
    }
    for name, (_, words) in EXPECTED.items():
        assert words in images[name].reason
        assert images[name].verdict == "rejected"
    good = [images[f"{seed:04d}.png"] for seed in range(10)]
    assert {(image.verdict, image.rejected_by, image.format, image.width) for image in good} == {
        ("accepted", None, "PNG", 64)
    }
    assert all(image.reason for image in good)
    assert (report.decided, report.counts.accepted, report.counts.rejected) == (19, 10, 9)
    assert {rejection.check for rejection in report.rejected} == {check for check, _ in EXPECTED.values()}
    assert sum(report.counts.rejected_by.values()) == 9
    assert dataset.images("rejected", rejected_by="blank") == [images["blank.png"]]


@servers_when_patient
def test_rejected_images_keep_their_bytes(dataset: Dataset, folder: Path) -> None:
    for name, content in _bad_files().items():
        (folder / name).write_bytes(content)
    collect(dataset, str(folder), CONFIG)
    clean(dataset, CONFIG)
    for name, content in _bad_files().items():
        assert dataset.store.read_bytes(_by_name(dataset)[name].sha256) == content


@servers_when_patient
def test_a_second_run_and_other_thresholds_look_at_no_image(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(6))
    for name, content in _bad_files().items():
        (folder / name).write_bytes(content)
    (folder / "near.jpg").write_bytes(encoded(drawing(0), "JPEG", quality=80))
    collect(dataset, str(folder), CONFIG)
    first = clean(dataset, CONFIG)
    verdicts = {name: image.reason for name, image in _by_name(dataset).items()}
    lose_all_bytes(dataset)  # whoever looks at an image now fails
    assert clean(dataset, CONFIG) == type(first)(0, 0, first.counts, ())
    permissive = {"min_side_px": 4, "allow_animated": True, "min_contrast": 0, "low_information_threshold": 0}
    other = clean(dataset, _with(**permissive, near_duplicate_difference=0.0))
    assert other.decoded == 0
    accepted = {name for name, image in _by_name(dataset).items() if image.verdict == "accepted"}
    assert accepted >= {"tiny.png", "moving.gif", "blank.png", "near.jpg", "0000.png"}
    assert accepted.isdisjoint({"text.png", "bomb.png", "cut.png"})
    assert clean(dataset, _with(min_side_px=65)).counts.rejected_by["too_small"] >= 6
    clean(dataset, CONFIG)
    assert {name: image.reason for name, image in _by_name(dataset).items()} == verdicts


@servers_when_patient
def test_only_new_images_are_looked_at(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(5))
    collect(dataset, str(folder), CONFIG)
    assert clean(dataset, CONFIG).decoded == 5
    lose_all_bytes(dataset)
    sha256 = dataset.add_image(encoded(drawing(99)))
    report = clean(dataset, CONFIG)
    assert (report.decoded, report.decided) == (1, 1)
    assert dataset.image(sha256).verdict == "accepted"


@servers_when_patient
def test_a_bomb_is_looked_at_once_the_limit_allows_it(dataset: Dataset) -> None:
    dataset.add_image(encoded(drawing(1, side_px=100)))
    assert clean(dataset, _with(max_pixels=5000)).counts.rejected_by == {"pixel_count": 1}
    report = clean(dataset, CONFIG)
    assert (report.decoded, report.counts.accepted) == (1, 1)


@servers_when_patient
def test_of_copies_the_largest_then_the_smaller_lossless_file_is_kept_and_named(dataset: Dataset) -> None:
    small = dataset.add_image(encoded(icon(1)))
    other = dataset.add_image(encoded(icon(2)))
    same_pixels = dataset.add_image(encoded(icon(2), "BMP"))
    assert clean(dataset, CONFIG).counts.rejected_by == {"exact_duplicate": 1}
    assert dataset.image(same_pixels).reason == f"shows the same pixels as image {other[:12]}, which is kept"
    large = dataset.add_image(encoded(icon(1, side_px=128)))
    assert clean(dataset, CONFIG).counts.rejected_by == {"exact_duplicate": 1, "near_duplicate": 1}
    assert dataset.image(large).verdict == "accepted"
    assert dataset.image(small).rejected_by == "near_duplicate"
    assert f"from image {large[:12]}, which is kept" in dataset.image(small).reason


@servers_when_patient
def test_a_copy_counts_again_when_the_better_one_is_turned_down(dataset: Dataset) -> None:
    still = dataset.add_image(encoded(drawing(1)))
    dataset.add_image(encoded(drawing(1, side_px=256)))
    clean(dataset, CONFIG)
    assert dataset.image(still).rejected_by == "near_duplicate"
    clean(dataset, _with(max_pixels=100 * 100))
    assert dataset.image(still).verdict == "accepted"


@servers_when_patient
def test_a_rejected_image_is_no_reason_to_reject_another(dataset: Dataset) -> None:
    frames = [drawing(1), drawing(2)]
    dataset.add_image(encoded(frames[0], "WEBP", lossless=True, save_all=True, append_images=frames[1:]))
    still = dataset.add_image(encoded(drawing(1)))
    assert clean(dataset, CONFIG).counts.rejected_by == {"animated": 1}
    assert dataset.image(still).verdict == "accepted"


@servers_when_patient
def test_a_hundred_blank_images_cost_no_hundred_squared_pairs(dataset: Dataset) -> None:
    for number in range(100):
        dataset.add_image(encoded(Image.new("RGB", (40, 40), "white")) + number.to_bytes(2, "big"))
    assert clean(dataset, CONFIG).counts.rejected_by == {"blank": 100}
    with dataset.store.read() as session:
        assert session.connection().exec_driver_sql("SELECT count(*) FROM similar_pairs").scalar() == 0
        assert session.connection().exec_driver_sql("SELECT count(*) FROM fingerprints").scalar() == 1


def _fill_with_copies(dataset: Dataset, count: int) -> None:
    dice = random.Random(0)
    for number in range(count):
        side = dice.randint(60, 90)
        dataset.add_image(encoded(icon(1, side_px=120).resize((side, side)), "JPEG", quality=80 + number % 15))
    for seed in range(2, 8):
        dataset.add_image(encoded(icon(seed)))


def _count_pairs(dataset: Dataset) -> int:
    with dataset.store.read() as session:
        return session.connection().exec_driver_sql("SELECT count(*) FROM similar_pairs").scalar_one()


def test_a_cluster_of_copies_is_not_compared_each_with_each_and_judged_as_if_it_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for min_members in (4, 10**6):
        monkeypatch.setattr(clusters, "MIN_MEMBERS", min_members)
        monkeypatch.setattr(search, "_PAIRS_PER_COMPARISON", 40)
        monkeypatch.setattr(cleaning, "_IMAGES_PER_BATCH", 20)
        with opened_dataset(tmp_path / str(min_members)) as dataset:
            _fill_with_copies(dataset, 50)
            clean(dataset, CONFIG)
            found.append(({image.sha256: image.reason for image in dataset.images()}, _count_pairs(dataset)))
    (judged, few), (judged_in_full, all_pairs) = found
    assert judged == judged_in_full
    assert sum("differs by" in reason for reason in judged.values()) > 30
    assert few < all_pairs / 4


def test_of_a_cluster_whose_representative_is_purged_one_is_kept_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (clusters, curation, store_clusters):
        monkeypatch.setattr(module, "MIN_MEMBERS", 4)
    monkeypatch.setattr(cleaning, "_IMAGES_PER_BATCH", 5)
    with opened_dataset(tmp_path) as dataset:
        _fill_with_copies(dataset, 20)
        clean(dataset, CONFIG)
        representative, kept = dataset.images()[0].sha256, dataset.images("accepted")[0].sha256
        copies = {
            one for sha256 in (representative, kept) for one in dataset.store.purge(sha256, "taken down", "me").copies
        }
        assert len(copies) == 18
        for sha256 in copies:
            dataset.undo_decision(sha256, "me")
        assert clean(dataset, CONFIG).decoded == 18
        assert [dataset.image(sha256).rejected_by for sha256 in copies].count("near_duplicate") == 17


@servers_when_patient
def test_missing_bytes_are_named_and_what_was_measured_stays(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(120))
    collect(dataset, str(folder), CONFIG)
    lost = dataset.images()[-1].sha256
    content = dataset.store.read_bytes(lost)
    dataset.store.blobs.remove(lost)
    with pytest.raises(DataError, match=lost):
        clean(dataset, CONFIG)
    assert dataset.counts().pending == 120
    dataset.store.blobs.put(content)
    # All others were recorded before the failure.
    assert clean(dataset, CONFIG).decoded == 1
    assert dataset.counts().accepted == 120


@servers_when_patient
def test_scores_are_kept_once_and_the_checks_that_reject_with_their_reasons(dataset: Dataset) -> None:
    sha256 = dataset.add_image(encoded(drawing(1)))
    clean(dataset, CONFIG)
    assert {check.verdict for check in dataset.details(sha256).checks} == {"accepted"}
    clean(dataset, _with(min_contrast=128.0, dark_threshold=1.0))
    with dataset.store.read() as session:
        scores = session.connection().exec_driver_sql("SELECT name, score FROM scores ORDER BY name").all()
    assert [name for name, _ in scores] == sorted(check.name for check in CHECKS)
    checks = {check.name: check for check in dataset.details(sha256).checks}
    assert {name: checks[name].score for name, _ in scores} == dict(map(tuple, scores))
    assert {name for name, check in checks.items() if check.verdict == "rejected"} == {"blank", "dark"}
    assert checks["blank"].score > 4
    assert "min_contrast = 128" in checks["blank"].reason
    assert checks["blurry"].reason == ""
    clean(dataset, CONFIG)
    assert {check.verdict for check in dataset.details(sha256).checks} == {"accepted"}


@servers_when_patient
def test_many_images_are_measured_by_processes_with_the_same_result(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdlora.data.measuring import workers

    for number in range(30):
        dataset.add_image(encoded(drawing(number)))
    sizes = {image.sha256: image.byte_size for image in dataset.images()}
    alone = list(workers.measure_all(dataset.store.blobs, sizes, 10**6))
    monkeypatch.setattr(workers, "_is_worth_a_pool", lambda _: True)
    assert list(workers.measure_all(dataset.store.blobs, sizes, 10**6)) == alone


@servers_when_patient
def test_another_background_looks_again_at_transparent_images_only(dataset: Dataset) -> None:
    ink = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    ink.paste((255, 255, 255, 255), (20, 20, 40, 50))  # white on nothing
    clear = dataset.add_image(encoded(ink))
    solid = dataset.add_image(encoded(drawing(1)))
    assert clean(dataset, CONFIG).counts.rejected_by == {"blank": 1}
    assert dataset.image(clear).rejected_by == "blank"
    on_black = _with(background="black")
    report = clean(dataset, on_black)
    assert (report.decoded, report.counts.accepted) == (1, 2)
    assert clean(dataset, on_black).decided == 0
    stricter = clean(dataset, _with(background="black", min_contrast=20.0))
    assert (stricter.decoded, stricter.counts.accepted) == (0, 2)
    report = clean(dataset, CONFIG)  # the scores on white count again
    assert (report.decoded, dataset.image(clear).rejected_by, dataset.image(solid).verdict) == (0, "blank", "accepted")


def test_a_picture_that_the_background_hides_is_rejected_with_the_setting_that_shows_it(dataset: Dataset) -> None:
    white_on_clear = Image.new("RGBA", (64, 64), "white")
    white_on_clear.putalpha(ImageOps.invert(icon(1).convert("L")))
    hidden = dataset.add_image(encoded(white_on_clear))
    clear = dataset.add_image(encoded(Image.new("RGBA", (64, 64), (255, 255, 255, 0))))
    white = dataset.add_image(encoded(Image.new("RGB", (64, 64), "white")))
    clean(dataset, CONFIG)
    assert {dataset.image(sha256).rejected_by for sha256 in (hidden, clear, white)} == {"blank"}
    assert "data.background = white; set data.background to another colour" in (dataset.image(hidden).reason or "")
    assert not any("data.background" in (dataset.image(sha256).reason or "") for sha256 in (clear, white))
    clean(dataset, _with(background="black"))
    assert dataset.image(hidden).verdict == "accepted"
    assert dataset.image(white).rejected_by == "blank"


@servers_when_patient
def test_images_are_looked_at_again_when_the_decoder_gives_other_pixels(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset.add_image(encoded(drawing(1)))
    clean(dataset, CONFIG)
    monkeypatch.setattr("sdlora.data.decoding.decode.VERSION", 1000)
    assert clean(dataset, CONFIG).decoded == 1
    assert clean(dataset, CONFIG).decoded == 0
