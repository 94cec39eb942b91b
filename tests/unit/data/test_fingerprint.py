from __future__ import annotations

import io
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from sdlora.data import DataConfig
from sdlora.data.fingerprint import HASH_DISTANCE, Fingerprint, Look, difference, fingerprint, hamming_distances
from tests.unit.data.drawing import drawing, encoded, icon

COUNT = 40
LIMIT = DataConfig().near_duplicate_difference


def _jpeg(image: Image.Image) -> Image.Image:
    return Image.open(io.BytesIO(encoded(image, "JPEG", quality=80))).convert("RGB")


def _shifted(image: Image.Image, right: int, down: int) -> Image.Image:
    canvas = Image.new("RGB", image.size, image.getpixel((0, 0)))
    canvas.paste(image, (right, down))
    return canvas


def _are_copies(one: Image.Image, other: Image.Image) -> bool:
    return _look_alike(fingerprint(one), fingerprint(other))


def _look_alike(first: Fingerprint, second: Fingerprint) -> bool:
    bits = hamming_distances(np.array([first.hash]), second.hash)[0]
    return bool(bits <= HASH_DISTANCE and difference(Look(first), Look(second)) < LIMIT)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "smaller": lambda image: image.resize((48, 48), Image.Resampling.LANCZOS),
    "larger": lambda image: image.resize((150, 150), Image.Resampling.BICUBIC),
    "jpeg": _jpeg,
    "moved by one": lambda image: _shifted(image, 1, 0),
    "moved by two": lambda image: _shifted(image, -2, 2),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.9),
}


@pytest.mark.parametrize("change", COPIES)
def test_changed_copies_of_icons_are_found(change: str) -> None:
    found = sum(_are_copies(icon(seed), COPIES[change](icon(seed))) for seed in range(COUNT))
    assert found >= 0.9 * COUNT


@pytest.mark.parametrize("change", ["smaller", "larger", "jpeg", "darker"])
def test_changed_copies_of_full_pictures_are_found(change: str) -> None:
    found = sum(_are_copies(drawing(seed), COPIES[change](drawing(seed))) for seed in range(COUNT))
    assert found >= 0.9 * COUNT


def test_different_drawings_on_white_are_not_copies_of_each_other() -> None:
    icons = [fingerprint(icon(seed)) for seed in range(3 * COUNT)]
    assert not [pair for pair in combinations(icons, 2) if _look_alike(*pair)]


def test_the_same_drawing_with_one_changed_feature_is_not_a_copy() -> None:
    face = icon(3)
    other = face.copy()
    other.paste("black", (28, 40, 38, 46))
    assert difference(Look(fingerprint(face)), Look(fingerprint(other))) > LIMIT


def test_another_colour_is_another_picture() -> None:
    red, blue = Image.new("RGB", (64, 64), "white"), Image.new("RGB", (64, 64), "white")
    red.paste("red", (16, 16, 48, 48))
    blue.paste("blue", (16, 16, 48, 48))
    assert difference(Look(fingerprint(red)), Look(fingerprint(blue))) > LIMIT


def test_the_difference_is_the_same_both_ways_within_a_grey_level() -> None:
    one, other = (Look(fingerprint(icon(seed))) for seed in (1, 2))
    assert difference(one, one) == pytest.approx(0, abs=0.5)
    if difference(one, other) != float("inf"):
        assert difference(one, other) == pytest.approx(difference(other, one), rel=0.35)


def test_hamming_distance_counts_bits_of_signed_numbers() -> None:
    assert hamming_distances(np.array([0, -1, 5]), -1).tolist() == [64, 0, 62]


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (1000, 7), (64, 64)])
def test_plain_and_odd_images_have_a_fingerprint(size: tuple[int, int]) -> None:
    assert len(fingerprint(Image.new("RGB", size, "white")).thumbnail) == 32 * 32 * 3
