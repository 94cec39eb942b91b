from __future__ import annotations

import io
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from sdlora.data.config import DataConfig
from sdlora.data.decoding.stack import stacks
from sdlora.data.duplicates import difference as difference_module
from sdlora.data.duplicates.difference import differences
from sdlora.data.duplicates.fingerprint import HASH_DISTANCE, SEARCHES, Fingerprint, fingerprint, fingerprints
from tests.unit.data.drawing import drawing, encoded, icon

COUNT = 40
LIMIT = DataConfig().near_duplicate_difference


def _jpeg(image: Image.Image) -> Image.Image:
    return Image.open(io.BytesIO(encoded(image, "JPEG", quality=80))).convert("RGB")


def _shifted(image: Image.Image, right: int, down: int) -> Image.Image:
    canvas = Image.new("RGB", image.size, image.getpixel((0, 0)))
    canvas.paste(image, (right, down))
    return canvas


def difference(first: Fingerprint, second: Fingerprint) -> float:
    return float(differences([first, second], np.array([[0, 1]]))[0])


def _are_copies(one: Image.Image, other: Image.Image) -> bool:
    return _look_alike(fingerprint(one), fingerprint(other))


def _look_alike(first: Fingerprint, second: Fingerprint) -> bool:
    bits = min((first.hashes[one] ^ second.hashes[other]).bit_count() for one, other in SEARCHES)
    return bits <= HASH_DISTANCE and difference(first, second) < LIMIT


def _cropped(image: Image.Image, *margins: float) -> Image.Image:
    left, top, right, bottom = margins
    width, height = image.size
    return image.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


def _with_bar(image: Image.Image, colour: str, over: bool) -> Image.Image:
    width, height = image.size
    bar = round(0.12 * height)
    canvas = Image.new("RGB", (width, height + (0 if over else bar)), colour)
    canvas.paste(image, (0, 0))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, canvas.height - bar, width, canvas.height), fill=colour)
    draw.text((width / 2, canvas.height - bar / 2), "words", fill="grey", anchor="mm", font_size=bar * 0.6)
    return canvas


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "smaller": lambda image: image.resize((48, 48), Image.Resampling.LANCZOS),
    "larger": lambda image: image.resize((150, 150), Image.Resampling.BICUBIC),
    "jpeg": _jpeg,
    "moved by one": lambda image: _shifted(image, 1, 0),
    "moved by two": lambda image: _shifted(image, -2, 2),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "cropped": lambda image: _cropped(image, 0.05, 0.05, 0.05, 0.05),
    "without its foot": lambda image: _cropped(image, 0, 0, 0, 0.1),
    "a bar below": lambda image: _with_bar(image, "black", over=False),
    "a bar over it": lambda image: _with_bar(image, "black", over=True),
    "words over it": lambda image: _with_bar(image, "white", over=True),
}


@pytest.mark.parametrize("change", COPIES)
def test_changed_copies_of_icons_are_found(change: str) -> None:
    found = sum(_are_copies(icon(seed), COPIES[change](icon(seed))) for seed in range(COUNT))
    # A white bar over a drawing on white leaves no edge to be told by.
    assert found >= (0.6 if change == "words over it" else 0.9) * COUNT


@pytest.mark.parametrize("change", [name for name in COPIES if not name.startswith("moved")])
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
    assert difference(fingerprint(face), fingerprint(other)) > LIMIT


def test_another_colour_is_another_picture() -> None:
    red, blue = Image.new("RGB", (64, 64), "white"), Image.new("RGB", (64, 64), "white")
    red.paste("red", (16, 16, 48, 48))
    blue.paste("blue", (16, 16, 48, 48))
    assert difference(fingerprint(red), fingerprint(blue)) > LIMIT


def _pale_page(emblem: str | None, side_px: int = 64) -> Image.Image:
    page = Image.new("RGB", (256, 256), "white")
    draw = ImageDraw.Draw(page)
    draw.rectangle((48, 16, 208, 240), fill="#f4f4f4", outline="#e4e4e4", width=6)
    if emblem == "mark":
        draw.ellipse((96, 96, 160, 160), fill="#dcdcdc")
    if emblem == "bar":
        draw.rectangle((80, 112, 176, 144), fill="#dcdcdc")
    return page.resize((side_px, side_px), Image.Resampling.BOX)


def test_pale_pictures_are_compared_by_what_they_show() -> None:
    pages = {emblem: fingerprint(_pale_page(emblem)) for emblem in (None, "mark", "bar")}
    assert all(difference(*pair) > LIMIT for pair in combinations(pages.values(), 2))
    for emblem, page in pages.items():
        assert difference(page, fingerprint(_jpeg(_pale_page(emblem)))) < LIMIT
        assert difference(page, fingerprint(_pale_page(emblem, side_px=96))) < LIMIT


def test_the_difference_is_the_same_both_ways() -> None:
    looks = [fingerprint(icon(seed)) for seed in range(12)] + [
        fingerprint(icon(seed, side_px=50)) for seed in range(12)
    ]
    pairs = np.array(list(combinations(range(24), 2)))
    ahead = differences(looks, pairs)
    assert np.isfinite(ahead).sum() >= 12
    np.testing.assert_array_equal(ahead, differences(looks, pairs[:, ::-1]))


def test_the_difference_of_a_pair_is_the_same_whatever_others_are_compared_with_it() -> None:
    looks = [fingerprint(icon(seed)) for seed in range(12)] + [
        fingerprint(icon(seed, side_px=50)) for seed in range(12)
    ]
    pairs = np.array(list(combinations(range(24), 2)))
    together = differences(looks, pairs)
    alone = np.concatenate([differences(looks, pairs[place : place + 1]) for place in range(len(pairs))])
    np.testing.assert_array_equal(alone, together)


def test_pairs_that_prove_impossible_in_the_end_differ_without_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def pulled_apart(first: np.ndarray, _: np.ndarray, maps: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        return maps + (10.0 if first.shape[1] == 32 else 0.0), np.zeros(len(maps), np.float32)

    monkeypatch.setattr(difference_module, "refine", pulled_apart)
    assert difference(fingerprint(icon(1)), fingerprint(icon(1))) == np.inf


def test_an_image_does_not_differ_from_itself() -> None:
    looks = [fingerprint(icon(seed)) for seed in range(5)] + [fingerprint(drawing(seed)) for seed in range(5)]
    assert differences(looks, np.array([[one, one] for one in range(10)])).max() < 0.5
    assert len(differences(looks, np.empty((0, 2), np.int64))) == 0


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (1000, 7), (64, 64)])
def test_plain_and_odd_images_have_a_fingerprint(size: tuple[int, int]) -> None:
    plain = fingerprint(Image.new("RGB", size, "white"))
    assert len(plain.thumbnail) == 32 * 32 * 3
    assert difference(plain, plain) == 0


@pytest.mark.parametrize("lot", [2, 7, 60])
def test_a_fingerprint_does_not_depend_on_the_images_beside_it(lot: int) -> None:
    images = [icon(seed) for seed in range(20)] + [drawing(seed) for seed in range(20)]
    images += [_with_bar(image, "black", over=True) for image in images[:30:3]]
    images += [icon(seed, side_px=200 + 90 * (seed % 5)) for seed in range(10)]
    found = {}
    for start in range(0, len(images), lot):
        for places, stack in stacks(images[start : start + lot]):
            found.update(zip((start + place for place in places), fingerprints(stack), strict=True))
    assert [found[place] for place in range(len(images))] == [fingerprint(image) for image in images]
