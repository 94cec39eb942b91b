from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sdlora.data.decoding.decode import UnreadableError, decode_rgb, read_header
from tests.unit.data.drawing import drawing, encoded


def _pixel(content: bytes, x: int = 8, y: int = 8) -> tuple[int, int, int]:
    image = decode_rgb(content)
    assert image.mode == "RGB"
    return image.getpixel((x, y))


def test_transparent_pixels_become_white_and_half_transparent_ones_half_white() -> None:
    assert _pixel(encoded(Image.new("RGBA", (16, 16), (255, 0, 0, 0)))) == (255, 255, 255)
    assert _pixel(encoded(Image.new("LA", (16, 16), (0, 128)))) == pytest.approx((127, 127, 127), abs=1)


def test_a_palette_with_a_transparent_entry_is_laid_on_white() -> None:
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 255, 255, 0, 0])
    ImageDraw.Draw(image).rectangle((0, 0, 15, 3), fill=0)
    content = encoded(image, transparency=0)
    assert _pixel(content, y=1) == (255, 255, 255)
    assert _pixel(content, y=10) == (255, 0, 0)


def test_sixteen_bits_are_scaled_not_cut_off() -> None:
    content = encoded(Image.fromarray(np.full((16, 16), 32768, np.uint16)))
    assert _pixel(content) == pytest.approx((128, 128, 128), abs=1)


def test_floating_point_tiff_is_read() -> None:
    assert _pixel(encoded(Image.fromarray(np.full((16, 16), 0.5, np.float32)), "TIFF")) == pytest.approx(
        (128,) * 3, abs=1
    )


def test_black_and_white_bits_are_read() -> None:
    assert _pixel(encoded(Image.new("1", (16, 16), 1))) == (255, 255, 255)


def test_cmyk_is_read_as_a_person_expects() -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert _pixel(encoded(red, "JPEG", quality=95)) == pytest.approx((255, 0, 0), abs=6)


def test_a_photograph_is_turned_upright_by_its_exif() -> None:
    image = Image.new("RGB", (20, 10), "white")
    ImageDraw.Draw(image).rectangle((0, 0, 4, 9), fill="black")  # left edge
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise: left becomes top
    upright = decode_rgb(encoded(image, exif=exif))
    assert upright.size == (10, 20)
    assert upright.getpixel((5, 1)) == (0, 0, 0)
    assert upright.getpixel((5, 15)) == (255, 255, 255)


def test_the_first_frame_of_an_animation_is_taken_and_it_is_known_as_one() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_header(content).animated
    assert _pixel(content) == pytest.approx((255, 0, 0), abs=1)
    assert not read_header(encoded(frames[0], "GIF")).animated


def test_pages_of_a_tiff_are_no_animation() -> None:
    content = encoded(drawing(1), "TIFF", save_all=True, append_images=[drawing(2)])
    assert not read_header(content).animated


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"Not found: see https://example.org", "text, not a picture"),
        ("Überschrift".encode() * 100, "text, not a picture"),
        (b"\0\x01\x02 noise \xff" * 50, "none of the formats"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "PostScript"),
    ],
)
def test_bytes_that_are_no_picture_are_refused_in_words(content: bytes, words: str) -> None:
    with pytest.raises(UnreadableError, match=words):
        read_header(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_picture_cut_short_is_refused(kind: str) -> None:
    content = encoded(drawing(3), kind)
    with pytest.raises(UnreadableError):
        decode_rgb(content[: len(content) // 2])


def test_a_png_with_changed_pixels_is_found_by_its_checksum() -> None:
    content = bytearray(encoded(drawing(3)))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(UnreadableError, match="damaged"):
        decode_rgb(bytes(content))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF"])
def test_no_damage_raises_anything_but_unreadable(kind: str) -> None:
    dice = np.random.default_rng(0)
    whole = encoded(drawing(4), kind)
    reasons = []
    for _ in range(150):
        content = bytearray(whole)
        for position in dice.integers(0, len(content), dice.integers(1, 12)):
            content[position] = dice.integers(256)
        try:
            read_header(bytes(content))
            assert decode_rgb(bytes(content)).mode == "RGB"
        except UnreadableError as error:
            reasons.append(str(error))
    assert reasons
    assert all(reasons)


def test_a_bomb_is_known_by_its_header() -> None:
    out = io.BytesIO()
    Image.new("1", (1, 1)).save(out, "PNG")
    content = bytearray(out.getvalue())
    content[16:24] = (40_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    assert read_header(bytes(content)).pixels == 1_600_000_000
