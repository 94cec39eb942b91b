from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from sdlora.data.checks import CHECKS, Picture
from sdlora.data.config import DataConfig
from sdlora.data.decoding.decode import Header
from sdlora.data.decoding.stack import Stack
from sdlora.data.measuring.measure import measure, measure_many
from tests.golden.cleanvision_pictures import pictures
from tests.unit.data.drawing import encoded, icon

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "cleanvision_scores.json").read_text())
NAMES = {
    "dark": "dark_score",
    "light": "light_score",
    "blurry": "blurry_score",
    "low_information": "low_information_score",
    "aspect_ratio": "odd_aspect_ratio_score",
}
BY_NAME = {check.name: check for check in CHECKS}
CONFIG = DataConfig()


def _seen(image: Image.Image) -> Picture:
    header = Header("PNG", image.width, image.height, image.width * image.height, animated=False)
    return Picture(header, None, Stack([image]))


def _rejected_by(image: Image.Image, config: DataConfig = CONFIG) -> set[str]:
    picture = _seen(image)
    return {check.name for check in CHECKS if check.rejects(check.score(picture), config)}


@pytest.mark.parametrize("name", NAMES)
def test_scores_equal_those_of_cleanvision(name: str) -> None:
    # Blurriness is measured on a picture that lost its colours first, not last: half a grey level of rounding.
    # The rest is single precision against double.
    tolerance = 0.005 if name == "blurry" else 1e-6
    for title, image in pictures().items():
        assert BY_NAME[name].score(_seen(image)) == pytest.approx(GOLDEN[title][NAMES[name]], abs=tolerance), title


def test_the_golden_pictures_lie_on_both_sides_of_every_threshold() -> None:
    thresholds = {
        "dark_score": 0.32,
        "light_score": 0.05,
        "blurry_score": 0.29,
        "low_information_score": 0.16,
        "odd_aspect_ratio_score": 0.35,
    }
    for score, threshold in thresholds.items():
        assert {scores[score] < threshold for scores in GOLDEN.values()} == {True, False}


def test_each_measure_finds_its_picture_and_lets_the_others_pass() -> None:
    found = {title: _rejected_by(image) for title, image in pictures().items()}
    assert found == {
        "gradient": set(),
        "out of focus": {"blurry"},
        "noise": set(),
        "waves": set(),
        "dark waves": {"dark"},
        "nearly black": {"blank", "dark"},
        "light waves": {"blank"},
        "icon": set(),
        "hairline": set(),
        "plain": {"blank", "low_information"},
        "soft": set(),
        "strip": {"aspect_ratio"},
        "small": set(),
        "large": set(),
    }


def test_drawings_on_white_are_light_only_when_asked_for() -> None:
    assert _rejected_by(pictures()["hairline"]) == set()
    assert _rejected_by(pictures()["hairline"], CONFIG.model_copy(update={"light_threshold": 0.05})) == {"light"}


def test_contrast_is_the_standard_deviation_of_the_most_varied_channel() -> None:
    for title, image in pictures().items():
        deviations = np.asarray(image, np.float64).reshape(-1, 3).std(axis=0)
        assert BY_NAME["blank"].score(_seen(image)) == pytest.approx(deviations.max(), abs=1e-6), title


def test_no_check_has_anything_against_the_demo_images() -> None:
    folder = Path(__file__).parents[3] / "sdlora" / "assets" / "demo"
    drawings = [*(folder / "first").glob("*.png"), *(folder / "later").glob("*.png")]
    assert len(drawings) == 522
    assert {path.name: found for path in drawings if (found := _rejected_by(Image.open(path).convert("RGB")))} == {}


@pytest.mark.parametrize("check", CHECKS, ids=[check.name for check in CHECKS])
def test_every_check_says_what_it_measures_and_names_its_settings(check: object) -> None:
    assert check.measures.endswith(".")
    assert set(check.settings) <= set(DataConfig.model_fields)


def test_what_is_measured_of_an_image_does_not_depend_on_the_images_beside_it() -> None:
    images = [*pictures().values(), *(icon(seed) for seed in range(8)), *(icon(seed, side_px=90) for seed in range(5))]
    contents = [encoded(image) for image in images] + [b"no picture", encoded(images[3], "JPEG")]
    listed = [(str(number), content) for number, content in enumerate(contents)]
    assert list(measure_many(listed, CONFIG.max_pixels)) == [
        measure(name, content, CONFIG.max_pixels) for name, content in listed
    ]


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (64, 1), (64, 64), (37, 53)])
def test_edges_and_levels_of_small_pictures_are_those_that_pillow_finds(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    grey = Image.fromarray(noise).convert("L")
    edges = np.asarray(grey.filter(ImageFilter.FIND_EDGES), np.float64).std()
    levels = np.std(grey.histogram())
    few_levels = 1 - np.exp(-levels / 100)
    expected = min(1 - np.exp(-edges / 100) + (few_levels if few_levels > 0.18 else 0), 1)
    assert BY_NAME["blurry"].score(_seen(Image.fromarray(noise))) == pytest.approx(expected, abs=1e-9)
