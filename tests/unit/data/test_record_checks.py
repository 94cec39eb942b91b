from __future__ import annotations

import shutil

import pytest

from sdlora.data.checks.captions import garbling
from sdlora.data.clean import clean
from sdlora.data.config import DataConfig
from sdlora.store.dataset import Dataset
from tests.unit.data.drawing import drawing, encoded

CONFIG = DataConfig()


def _with(**settings: object) -> DataConfig:
    return DataConfig(**settings)


def _add(dataset: Dataset, seed: int, *captions: str, licence: str | None = None) -> str:
    return dataset.add_image(encoded(drawing(seed)), captions, licence=licence)


def _rejected(dataset: Dataset, config: DataConfig) -> dict[str, str]:
    clean(dataset, config)
    return {image.sha256: f"{image.rejected_by}: {image.reason}" for image in dataset.images("rejected")}


def test_by_default_captions_and_licences_are_no_reason_to_reject(dataset: Dataset) -> None:
    _add(dataset, 1)
    _add(dataset, 2, "x")
    for seed in range(3, 13):
        _add(dataset, seed, "the same")
    assert _rejected(dataset, CONFIG) == {}


def test_a_missing_caption_is_rejected_when_asked_and_accepted_once_it_is_there(dataset: Dataset) -> None:
    bare, said = _add(dataset, 1), _add(dataset, 2, "a drawing")
    asked = _with(require_captions=True)
    assert _rejected(dataset, asked) == {bare: "caption_missing: no caption, and require_captions = true"}
    shutil.rmtree(dataset.store.home / "blobs")  # no pixel is needed from here on
    dataset.set_captions(bare, ["another drawing"])
    report = clean(dataset, asked)
    assert (report.decided, report.decoded, report.counts.rejected) == (1, 0, 0)
    dataset.set_captions(bare, [])
    assert list(_rejected(dataset, asked)) == [bare]
    assert dataset.image(said).verdict == "accepted"
    assert _rejected(dataset, CONFIG) == {}


def test_the_longest_caption_counts_for_its_length(dataset: Dataset) -> None:
    short, long, bare = _add(dataset, 1, "cat"), _add(dataset, 2, "dog", "a dog in the rain"), _add(dataset, 3)
    found = _rejected(dataset, _with(min_caption_chars=5))
    assert found == {
        short: "caption_short: short caption: 'cat' has 3 characters, fewer than min_caption_chars = 5",
    }
    assert {dataset.image(long).verdict, dataset.image(bare).verdict} == {"accepted"}


@pytest.mark.parametrize(
    "text",
    ["caf\ufffd", "a bell \x07", "a \x1b[31mred\x1b[0m cat", "CafÃ© in Paris", "itâ€™s raining", "\ud800 half a pair"],
)
def test_text_read_with_the_wrong_encoding_is_known(text: str) -> None:
    assert garbling(text)


@pytest.mark.parametrize(
    "text",
    ["a cat", "Café in São Paulo", "naïve", "猫の絵", "кошка", "قطة", "two\nlines", "🐈‍⬛ cat", "50 µm × 3 °C", "it’s"],
)
def test_text_in_any_language_is_not_garbled(text: str) -> None:
    assert garbling(text) is None


def test_a_garbled_caption_is_rejected_shown_harmlessly_and_allowed_by_a_setting(dataset: Dataset) -> None:
    bad = _add(dataset, 1, "a \x1b[31mcat")
    _add(dataset, 2, "a cat")
    assert _rejected(dataset, CONFIG) == {
        bad: (
            "caption_garbled: garbled caption 'a \\x1b[31mcat': it has control characters; "
            "allow_garbled_captions would keep it"
        )
    }
    assert _rejected(dataset, _with(allow_garbled_captions=True)) == {}


def test_a_caption_on_too_many_images_rejects_all_of_them_and_only_while_it_is(dataset: Dataset) -> None:
    limit = _with(max_images_per_caption=2)
    first = [_add(dataset, seed, "a picture") for seed in (1, 2)]
    other = _add(dataset, 3, "a picture", "a house by the sea")
    assert _rejected(dataset, _with(max_images_per_caption=3)) == {}
    assert sorted(_rejected(dataset, limit)) == sorted(first)
    assert "'a picture' is on more images than max_images_per_caption = 2" in dataset.image(first[0]).reason
    assert dataset.image(other).verdict == "accepted"  # one of its captions is its own

    dataset.set_captions(first[0], ["a mill"])
    assert list(_rejected(dataset, limit)) == first[1:]  # what the source says of the first one goes on counting
    fresh = [_add(dataset, seed, "a mill") for seed in (4, 5)]
    assert sorted(_rejected(dataset, limit)) == sorted([*fresh, *first])  # the one accepted before is decided again


def test_images_come_back_when_enough_others_get_a_caption_of_their_own(dataset: Dataset) -> None:
    limit = _with(max_images_per_caption=2)
    shared = [_add(dataset, seed) for seed in range(3)]
    for sha256 in shared:
        dataset.set_captions(sha256, ["a picture"])
    assert sorted(_rejected(dataset, limit)) == sorted(shared)
    dataset.set_captions(shared[0], ["a mill"])
    report = clean(dataset, limit)
    assert (report.decoded, report.decided, report.counts.rejected) == (0, 3, 0)


def test_only_images_under_allowed_licences_are_kept_when_any_are_named(dataset: Dataset) -> None:
    free = _add(dataset, 1, licence="CC-BY-4.0 (Twitter Emoji)")
    closed, unknown = _add(dataset, 2, licence="all rights reserved"), _add(dataset, 3)
    found = _rejected(dataset, _with(allowed_licences=("cc0*", "cc-by-4.0*")))
    assert found == {
        closed: "licence: licence 'all rights reserved' is not among allowed_licences = cc0*, cc-by-4.0*",
        unknown: "licence: no licence is recorded, so it is not among allowed_licences = cc0*, cc-by-4.0*",
    }
    assert dataset.image(free).verdict == "accepted"


def test_checks_that_are_off_reject_nothing(dataset: Dataset) -> None:
    sha256 = _add(dataset, 1, "a drawing")
    for config, names in ((_with(min_caption_chars=20, require_captions=True), {"caption_short"}), (CONFIG, set())):
        clean(dataset, config)
        checks = dataset.details(sha256).checks
        assert {check.name for check in checks if check.verdict == "rejected"} == names
