from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from sdlora.data.decoding.decode import decode, decode_rgb
from tests.unit.data.drawing import encoded
from tests.unit.data.icc import DISPLAY_P3_TO_XYZ, SRGB_TO_XYZ, cmyk_profile, grey_profile, matrix_profile

SIDE = 16


def _plain(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (SIDE, SIDE), colour)


def _colour(content: bytes, background: str = "white") -> tuple[int, ...]:
    image = decode_rgb(content, background)
    assert image.mode == "RGB"
    assert len(set(image.get_flattened_data())) == 1
    return image.getpixel((3, 3))


def _srgb_of(xyz: np.ndarray) -> tuple[float, ...]:
    """IEC 61966-2-1, from D50 XYZ."""
    linear = np.clip(np.linalg.inv(np.array(SRGB_TO_XYZ)) @ xyz, 0, 1)
    return tuple(255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


def _xyz_of_lab(lightness: float, a: float, b: float) -> np.ndarray:
    fy = (lightness + 16) / 116
    f = np.array([fy + a / 500, fy, fy - b / 200])
    return np.array([0.9642, 1.0, 0.8249]) * np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("colour", [(200, 100, 50), (40, 160, 90), (128, 128, 128), (255, 255, 255), (0, 0, 0)])
def test_a_wide_gamut_profile_is_followed_to_srgb(kind: str, colour: tuple[int, int, int]) -> None:
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    profile = matrix_profile(DISPLAY_P3_TO_XYZ, 2.2)
    expected = _srgb_of(np.array(DISPLAY_P3_TO_XYZ) @ (np.array(colour) / 255) ** 2.2)
    assert _colour(encoded(_plain("RGB", colour), kind, icc_profile=profile, **options)) == pytest.approx(
        expected, abs=3 if kind == "JPEG" else 2
    )


def test_a_wide_gamut_red_is_not_left_duller() -> None:
    profile = matrix_profile(DISPLAY_P3_TO_XYZ, 2.2)
    red, green, _ = _colour(encoded(_plain("RGB", (200, 100, 50)), icc_profile=profile))
    assert red >= 210  # left as it is, it would be 200
    assert green <= 100


def test_a_profile_of_grey_is_followed() -> None:
    expected = _srgb_of((128 / 255) ** 1.0 * np.array([0.9642, 1.0, 0.8249]))
    assert _colour(encoded(_plain("L", 128), icc_profile=grey_profile(1.0))) == pytest.approx(expected, abs=2)


def test_a_profile_that_is_srgb_changes_no_pixel() -> None:
    from PIL import ImageCms

    dice = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    shown = decode_rgb(encoded(Image.fromarray(dice), icc_profile=profile))
    assert (np.asarray(shown) == dice).all()


@pytest.mark.parametrize("profile", [b"no profile at all", matrix_profile(DISPLAY_P3_TO_XYZ, 2.2)[:200], b"\0" * 300])
def test_a_damaged_profile_is_ignored(profile: bytes) -> None:
    assert _colour(encoded(_plain("RGB", (200, 100, 50)), icc_profile=profile)) == (200, 100, 50)


def test_a_profile_of_another_kind_of_image_is_ignored() -> None:
    assert _colour(encoded(_plain("RGB", (200, 100, 50)), icc_profile=grey_profile(1.8))) == (200, 100, 50)


INKS = {corner: (100.0 - 22 * sum(corner), 10.0 * corner[1], 30.0 * corner[2]) for corner in np.ndindex(2, 2, 2, 2)}


@pytest.mark.parametrize("corner", [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 1, 0), (0, 0, 0, 1)])
def test_a_cmyk_photograph_with_a_profile_looks_as_printed(corner: tuple[int, int, int, int]) -> None:
    # Pillow writes CMYK JPEG as Photoshop does: inverted, with Adobe's marker.
    inks = tuple(255 * ink for ink in corner)
    content = encoded(_plain("CMYK", inks), "JPEG", quality=100, icc_profile=cmyk_profile(INKS))
    assert b"Adobe" in content
    assert _colour(content) == pytest.approx(_srgb_of(_xyz_of_lab(*INKS[corner])), abs=8)


def test_cmyk_without_a_profile_is_ink_on_white() -> None:
    assert _colour(encoded(_plain("CMYK", (0, 255, 255, 0)), "TIFF")) == (255, 0, 0)
    assert _colour(encoded(_plain("CMYK", (0, 0, 0, 0)), "JPEG", quality=95)) == pytest.approx((255,) * 3, abs=1)


@pytest.mark.parametrize("background", ["white", "black", "#3366cc"])
def test_transparent_parts_lie_on_the_chosen_background(background: str) -> None:
    expected = Image.new("RGB", (1, 1), background).getpixel((0, 0))
    for image, options in (
        (_plain("RGBA", (255, 0, 0, 0)), {}),
        (_plain("LA", (90, 0)), {}),
        (_plain("P", 0), {"transparency": 0}),
        (_plain("P", 0), {"transparency": b"\0"}),
        (_plain("RGB", (9, 8, 7)), {"transparency": (9, 8, 7)}),
        (_plain("L", 77), {"transparency": 77}),
    ):
        content = encoded(image, **options)
        assert _colour(content, background) == expected
        assert decode(content).transparent


def test_half_transparent_parts_are_mixed_with_the_background() -> None:
    content = encoded(_plain("RGBA", (200, 100, 0, 51)))  # a fifth
    assert _colour(content, "black") == pytest.approx((40, 20, 0), abs=1)
    assert _colour(content, "#0000ff") == pytest.approx((40, 20, 204), abs=1)


def test_an_alpha_channel_that_hides_nothing_is_no_transparency() -> None:
    assert not decode(encoded(_plain("RGBA", (1, 2, 3, 255)))).transparent
    assert not decode(encoded(_plain("RGB", (1, 2, 3)))).transparent


def test_transparency_and_a_profile_go_together() -> None:
    profile = matrix_profile(DISPLAY_P3_TO_XYZ, 2.2)
    opaque = _colour(encoded(_plain("RGB", (200, 100, 50)), icc_profile=profile))
    assert _colour(encoded(_plain("RGBA", (200, 100, 50, 255)), icc_profile=profile)) == opaque
    assert _colour(encoded(_plain("RGBA", (200, 100, 50, 0)), icc_profile=profile), "black") == (0, 0, 0)


def test_one_transparent_value_of_sixteen_bits_hides_no_neighbour() -> None:
    values = np.full((SIDE, SIDE), 32768, np.uint16)
    values[:, 8:] = 32769
    # Pillow writes the value, though it reads such files only as grey.
    image = decode_rgb(encoded(Image.fromarray(values), transparency=32768), "#ff0000")
    assert image.getpixel((2, 2)) == (255, 0, 0)
    assert image.getpixel((12, 2)) == (128, 128, 128)


@pytest.mark.parametrize(
    ("array", "kind", "expected"),
    [
        (np.full((SIDE, SIDE), 65535, np.uint16), "PNG", 255),
        (np.full((SIDE, SIDE), 257 * 77, np.uint16), "PNG", 77),
        (np.full((SIDE, SIDE), 257 * 77, np.uint16), "TIFF", 77),
        (np.full((SIDE, SIDE), 257 * 77, np.int32), "TIFF", 77),
        (np.full((SIDE, SIDE), 77, np.int32), "TIFF", 77),
        (np.full((SIDE, SIDE), 0.25, np.float32), "TIFF", 64),
        (np.full((SIDE, SIDE), 100.0, np.float32), "TIFF", 100),
        (np.full((SIDE, SIDE), np.nan, np.float32), "TIFF", 0),
    ],
)
def test_deep_and_floating_point_grey_is_scaled(array: np.ndarray, kind: str, expected: int) -> None:
    assert _colour(encoded(Image.fromarray(array), kind)) == (expected,) * 3


def test_lab_is_read() -> None:
    content = encoded(Image.fromarray(np.full((SIDE, SIDE, 3), (138, 20, 30), np.uint8), "LAB"), "TIFF")
    assert _colour(content) == pytest.approx(_srgb_of(_xyz_of_lab(138 / 2.55, 20, 30)), abs=3)


def test_bits_and_pages() -> None:
    assert _colour(encoded(_plain("1", 0), "TIFF")) == (0, 0, 0)
    assert _colour(encoded(_plain("1", 1), "BMP")) == (255, 255, 255)
    pages = [_plain("RGB", colour) for colour in ("red", "blue")]
    assert _colour(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])) == (255, 0, 0)


def test_orientation_and_transparency_go_together() -> None:
    image = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 5, 10))  # left edge
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = decode_rgb(encoded(image, exif=exif), "black")
    assert upright.size == (10, 20)
    assert (upright.getpixel((5, 1)), upright.getpixel((5, 15))) == ((255, 0, 0), (0, 0, 0))


def test_damaged_exif_costs_no_picture() -> None:
    out = io.BytesIO()
    _plain("RGB", (200, 100, 50)).save(out, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert _colour(out.getvalue()) == (200, 100, 50)
