"""Bytes to pixels as a person sees them: upright, on white, 8 bits per colour."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# Formats whose readers only unpack pixels. Pillow's EPS reader, for one, starts Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "TGA", "QOI")
_ANIMATED_FORMATS = ("GIF", "PNG", "WEBP", "AVIF")  # several pages of a TIFF or pictures of an MPO are no animation


class UnreadableError(ValueError):
    """These bytes are not a whole picture; the message says why in words."""


@dataclass(frozen=True)
class Header:
    """What the first bytes of a picture promise. `format` is empty where they promise too many pixels to go on."""

    format: str
    width: int
    height: int
    pixels: int
    animated: bool


def read_header(content: bytes) -> Header:
    """Format, size and animation, without decoding a pixel.

    Raises:
        UnreadableError: the bytes are no picture of a known format.
    """
    try:
        with _quiet(), Image.open(io.BytesIO(content), formats=FORMATS) as image:
            animated = image.format in _ANIMATED_FORMATS and bool(getattr(image, "is_animated", False))
            return Header(image.format or "", image.width, image.height, image.width * image.height, animated)
    except Image.DecompressionBombError as error:
        # Pillow refuses before it tells the sides; its message has their product.
        found = re.search(r"\((\d+) pixels\)", str(error))
        return Header("", 0, 0, int(found[1]) if found else 2**31, animated=False)
    except Exception as error:  # damaged files raise nearly everything: struct.error, KeyError, MemoryError
        raise UnreadableError(_explain(error, content)) from error


def decode_rgb(content: bytes) -> Image.Image:
    """The (first) picture as 8-bit RGB: turned upright by EXIF, on white where transparent, 16 bits scaled to 8.

    The caller has compared `read_header(content).pixels` with a limit.

    Raises:
        UnreadableError: the bytes are damaged or cut short.
    """
    try:
        with _quiet():
            _verify(content)
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                image.load()
                return _on_white(_upright(_to_8_bits(image)))
    except Exception as error:  # as above
        raise UnreadableError(_explain(error, content)) from error


def _verify(content: bytes) -> None:
    """Compare PNG's checksums; its decoder alone lets damaged pixels through."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        if image.format == "PNG":
            image.verify()


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001  # damaged EXIF data is no reason to lose the picture
        return image


def _to_8_bits(image: Image.Image) -> Image.Image:
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image, dtype=np.float64)
    if image.mode == "F":
        scale = 255.0 if values.max(initial=0) <= 1 else 255.0 / max(values.max(), 255.0)
    else:
        scale = 255.0 / 65535.0 if values.max(initial=0) > 255 or image.mode.startswith("I;16") else 1.0
    grey = Image.fromarray((np.nan_to_num(values) * scale).round().clip(0, 255).astype(np.uint8))
    grey.info.update(image.info)
    grey.getexif().update(image.getexif())
    return grey


def _on_white(image: Image.Image) -> Image.Image:
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image)
        image = canvas
    return image.convert("RGB")


def _quiet() -> warnings.catch_warnings[None]:
    """Pillow warns of large pictures and odd metadata; the checks say what is to be said."""
    return warnings.catch_warnings(action="ignore")


def _explain(error: Exception, content: bytes) -> str:
    if not content:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        if b"\0" not in content[:512] and _is_text(content[:512]):
            return "the bytes are text, not a picture"
        return f"the bytes are none of the formats {', '.join(FORMATS)}"
    if "truncated" in str(error).lower():
        return "the file is cut short"
    return f"the file is damaged ({' '.join(str(error).split()) or type(error).__name__})"


def _is_text(start: bytes) -> bool:
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(start) - 4  # a character cut in two at the end
    return True
