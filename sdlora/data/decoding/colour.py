"""Colour conversion: any mode and profile to 8-bit sRGB on a background."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np
from PIL import Image, ImageCms, ImageStat

_SRGB_TOLERANCE_LEVELS = 2
"""Largest change of colours, in grey levels, by a profile that counts as sRGB."""

_VISIBLE_RANGE_LEVELS = 128
"""Range of values in one channel from which a picture is certainly visible."""
_MIN_ALPHA_DEVIATION = 16.0  # grey levels; less is no picture
_HIDDEN_SHARE = 1 / 8  # of the deviation of the alpha channel


class OnBackground(NamedTuple):
    """Picture on its background.

    Attributes:
        rgb: 8-bit sRGB.
        transparent: whether the background shows through anywhere.
        hidden: whether the alpha channel holds a picture that hardly shows, because it has the background's colour.
    """

    rgb: Image.Image
    transparent: bool = False
    hidden: bool = False


def to_srgb(image: Image.Image, background: str) -> OnBackground:
    """Convert a loaded image to sRGB, and lay it on a background.

    Colour profiles are applied, unless they are damaged or for another mode. 16-bit and floating-point values (0 to 1)
    are scaled to 8 bits.

    Args:
        background: colour behind transparent pixels, a colour name or #rrggbb.
    """
    if image.mode == "RGB" and not image.info:  # most images of a large set
        return OnBackground(image)
    profile = image.info.get("icc_profile")
    image = _to_8_bits(image)
    alpha = _alpha(image)
    rgb = _to_rgb(image, profile)
    if alpha is None or alpha.getextrema()[0] == 255:
        return OnBackground(rgb)
    canvas = Image.new("RGB", rgb.size, background)
    canvas.paste(rgb, mask=alpha)
    return OnBackground(canvas, transparent=True, hidden=_is_hidden(canvas, alpha))


def _is_hidden(canvas: Image.Image, alpha: Image.Image) -> bool:
    """Return whether a picture in the alpha channel hardly shows on the canvas."""
    # The ranges exclude most pictures in a hundredth of the time of a deviation.
    extrema = cast("tuple[tuple[int, int], ...]", canvas.getextrema())  # one pair per channel
    if max(high - low for low, high in extrema) >= _VISIBLE_RANGE_LEVELS:
        return False
    (alpha_deviation,) = ImageStat.Stat(alpha).stddev
    return (
        alpha_deviation >= _MIN_ALPHA_DEVIATION and max(ImageStat.Stat(canvas).stddev) < _HIDDEN_SHARE * alpha_deviation
    )


def _to_8_bits(image: Image.Image) -> Image.Image:
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    if image.mode == "F":
        scale = 255.0 if values.max(initial=0) <= 1 else 255.0 / max(values.max(), 255.0)
    else:
        scale = 255.0 / 65535.0 if values.max(initial=0) > 255 or image.mode.startswith("I;16") else 1.0
    grey = Image.fromarray((values * scale).round().clip(0, 255).astype(np.uint8))
    if "transparency" in image.info:  # one grey value; after scaling to 8 bits its neighbours would equal it
        grey.putalpha(Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)))
    return grey


def _alpha(image: Image.Image) -> Image.Image | None:
    if image.mode in ("RGBA", "LA"):
        return image.getchannel("A")
    if image.mode in ("PA", "La", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA").getchannel("A")
    return None


def _to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode == "LAB":
        return _apply(_from_lab(), image)
    if image.mode in ("La", "RGBa"):
        image = image.convert("RGBA")
    plain_mode = {"1": "L", "LA": "L", "L": "L", "CMYK": "CMYK"}.get(image.mode, "RGB")
    if image.mode != plain_mode:
        image = image.convert(plain_mode)
    transform = _to_srgb_transform(profile, plain_mode) if profile else None
    if transform:
        return _apply(transform, image)
    return image if plain_mode == "RGB" else image.convert("RGB")


def _apply(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # None only for conversion in place
    return converted


@lru_cache(maxsize=32)
def _to_srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the transform from a profile to sRGB; None if the profile is unusable or practically sRGB."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = _transform(source, mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return None if _is_srgb(transform, mode) else transform


def _is_srgb(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    if mode == "CMYK":
        return False
    steps = np.arange(0, 256, 17, dtype=np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(16, 256, 3)
    colours = Image.fromarray(cube) if mode == "RGB" else Image.fromarray(steps[None])
    before = np.asarray(colours.convert("RGB"), np.int16)
    return bool(np.abs(np.asarray(_apply(transform, colours), np.int16) - before).max() <= _SRGB_TOLERANCE_LEVELS)


@lru_cache(maxsize=1)
def _from_lab() -> ImageCms.ImageCmsTransform:
    return _transform(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), "LAB")


def _transform(source: ImageCms.ImageCmsProfile, mode: str) -> ImageCms.ImageCmsTransform:
    # As in browsers: colours inside sRGB are kept, and black stays black.
    return ImageCms.buildTransform(
        source,
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
        mode,
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
