from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdlora.data import DataConfig
from sdlora.data.checks import CHECKS, Picture
from sdlora.data.decoding.decode import Header
from tests.golden.cleanvision_pictures import pictures

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
    return Picture(Header("PNG", image.width, image.height, image.width * image.height, animated=False), image, None)


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
