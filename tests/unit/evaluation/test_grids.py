from __future__ import annotations

import pytest
from PIL import Image, ImageFont

from sdlora.evaluation.grids import draw_grid, wrap


def test_images_stand_in_the_column_under_their_head() -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    rows = [
        ("first", [Image.new("RGB", (64, 64), colour) for colour in colours]),
        ("second", [Image.new("RGB", (64, 64), colour) for colour in reversed(colours)]),
    ]
    grid = draw_grid(["base", "champion", "candidate"], rows)
    width, height = grid.size
    first_row = [grid.getpixel((width - 10 - 138 * (2 - column) - 64, 36 + 64)) for column in range(3)]
    second_row = [grid.getpixel((width - 10 - 138 * (2 - column) - 64, 36 + 138 + 64)) for column in range(3)]
    assert first_row == colours
    assert second_row == colours[::-1]
    assert height == 36 + 2 * 138


def test_captions_and_heads_are_written() -> None:
    blank = Image.new("RGB", (64, 64), "white")
    without, with_text = (draw_grid([head], [(caption, [blank])]) for head, caption in (("", ""), ("base", "a cat")))
    assert without.tobytes() != with_text.tobytes()


def test_rows_must_fit_the_heads() -> None:
    with pytest.raises(ValueError, match=r"needs 2 images, got \[1\]"):
        draw_grid(["a", "b"], [("row", [Image.new("RGB", (8, 8))])])
    with pytest.raises(ValueError, match="needs 1 images"):
        draw_grid(["a"], [])


def test_long_captions_are_wrapped_and_cut_with_an_ellipsis() -> None:
    font = ImageFont.load_default(14)
    text = wrap("a very long caption that does not end before the column does and goes on", font, 120, lines=2)
    lines = text.split("\n")
    assert len(lines) == 2
    assert lines[0].startswith("a very long")
    assert lines[1].endswith("…")
    assert all(font.getlength(line) <= 120 for line in lines)
    unbroken = wrap("x" * 200, font, 120, lines=3)
    assert unbroken.endswith("…")
    assert font.getlength(unbroken) <= 120


def test_rows_side_by_side_make_the_sheet_wider_and_lower_and_show_every_image() -> None:
    colours = ("red", "lime", "blue")
    rows = [(colour, [Image.new("RGB", (64, 64), colour)]) for colour in colours]
    tall, wide = draw_grid(["base"], rows), draw_grid(["base"], rows, rows_per_line=2)
    assert wide.width == 2 * tall.width
    assert wide.height < tall.height
    shown = {pixel for _, pixel in wide.getcolors(maxcolors=1 << 20) or []}
    assert {(255, 0, 0), (0, 255, 0), (0, 0, 255)} <= shown
