from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sdlora.data.duplicates.crop_borders import content_boxes, without_bars
from tests.unit.data.drawing import drawing, icon


def _rows(image: Image.Image) -> list[int]:
    return without_bars(np.asarray(image)[None])[0].tolist()


def _box(image: Image.Image) -> list[float]:
    return content_boxes(np.asarray(image)[None])[0].tolist()


@pytest.mark.parametrize("colour", ["black", "white", "#204080"])
def test_a_bar_with_words_is_found_at_the_top_and_at_the_bottom(colour: str) -> None:
    for seed in range(10):
        image = Image.new("RGB", (200, 240), colour)
        image.paste(drawing(seed, side_px=200), (0, 40))
        ImageDraw.Draw(image).text((100, 20), "some words", fill="grey", anchor="mm", font_size=18)
        assert _rows(image) == [40, 240]
        assert _rows(image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)) == [0, 200]


def test_pictures_without_a_bar_are_left_whole() -> None:
    whole = [image for seed in range(40) for image in (icon(seed), drawing(seed))]
    assert sum(_rows(image) == [0, image.height] for image in whole) >= 0.9 * len(whole)


def test_the_content_is_found_within_a_plain_border_to_a_fraction_of_a_pixel() -> None:
    image = Image.new("RGB", (80, 60), "white")
    image.paste("black", (10, 20, 50, 40))
    assert _box(image) == [10, 20, 50, 40]
    softer = image.resize((40, 30), Image.Resampling.BOX, box=(1, 1, 79, 59))
    left, top, right, bottom = _box(softer)
    scale = 78 / 40
    assert (left * scale + 1, right * scale + 1) == pytest.approx((10, 50), abs=0.6)
    assert (top * scale + 1, bottom * scale + 1) == pytest.approx((20, 40), abs=0.6)


def test_a_picture_up_to_its_edges_is_all_content() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    assert _box(Image.fromarray(noise)) == [0, 0, 70, 50]
