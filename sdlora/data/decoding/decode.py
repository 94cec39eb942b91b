"""Decoding of images to pixels as a person sees them: upright, on a background, 8-bit sRGB."""

from __future__ import annotations

import ctypes
import io
import logging
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageOps, UnidentifiedImageError, _imaging

from sdlora.data.decoding.colour import to_srgb

VERSION = 2
"""Version of the decoding. Raise it when the same bytes would give other pixels."""

_HIDDEN = "hidden"

# Formats whose readers only unpack pixels. Pillow's EPS reader, for one, starts Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "TGA", "QOI")
_ANIMATED_FORMATS = ("GIF", "PNG", "WEBP", "AVIF")  # not TIFF or MPO: their pages are no animation
_PNG_START = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112
_SIDEWAYS_ORIENTATIONS = (5, 6, 7, 8)
_JPEG_PASS = b"\xff\xda"
_MAX_JPEG_PASSES = 200  # common encoders use 10; passes of embedded previews count as well


class UnreadableError(ValueError):
    """Error for bytes that are not a complete picture. The message holds the reason in words."""


@dataclass(frozen=True)
class Header:
    """Format and size from the first bytes of a picture. `format` is empty if Pillow refused the number of pixels."""

    format: str
    width: int
    height: int
    pixels: int
    animated: bool


@dataclass(frozen=True)
class Decoded:
    """Result of decoding.

    Attributes:
        header: None if the bytes are no picture of a known format.
        rgb: the picture, or the first frame; None if decoding failed or was not tried.
        problem: the reason in words if decoding failed.
        transparent: whether the background shows through.
        hidden: whether the alpha channel holds a picture that the background hides.
    """

    header: Header | None = None
    rgb: Image.Image | None = None
    problem: str | None = None
    transparent: bool = False
    hidden: bool = False

    def decoded_as(self, background: str) -> str:
        """Return the name of this decoding. The pixels are up to date while `current_decodings` contains it."""
        return current_decodings(background)[self.transparent + self.hidden]


def current_decodings(background: str) -> tuple[str, str, str]:
    """Return the current values of `Decoded.decoded_as` for opaque, transparent and hidden pictures."""
    return f"{VERSION}", f"{VERSION} {background}", f"{VERSION} {background} {_HIDDEN}"


def shown_background(decoded_as: str) -> str:
    """Return the background from a `decoded_as` value; empty if no background shows through."""
    _, background, *_ = f"{decoded_as}  ".split(" ")
    return background


def is_hidden(decoded_as: str | None) -> bool:
    """Return whether a `decoded_as` value says that the background hides a picture in the alpha channel."""
    return (decoded_as or "").endswith(f" {_HIDDEN}")


def read_header(content: bytes) -> Header:
    """Read format, size and animation without decoding pixels.

    Raises:
        UnreadableError: the bytes are no picture of a known format.
    """
    decoded = decode(content, max_pixels=-1)
    if decoded.header is None:
        raise UnreadableError(decoded.problem)
    return decoded.header


def upright_size(content: bytes) -> tuple[int, int]:
    """Read (width, height) after the rotation by EXIF, without decoding pixels.

    Raises:
        UnreadableError: the bytes are no picture of a known format.
    """
    try:
        with opened(content) as image:
            width, height = image.size
            return (height, width) if _orientation(image) in _SIDEWAYS_ORIENTATIONS else (width, height)
    except Exception as error:  # damaged files raise almost any exception
        raise UnreadableError(_explain(error, content)) from error


def decode_rgb(content: bytes, background: str = "white") -> Image.Image:
    """Decode the picture, or its first frame, to 8-bit RGB, without a limit on pixels.

    The caller must have compared `read_header(content).pixels` with a limit.

    Raises:
        UnreadableError: the bytes are damaged or cut short.
    """
    decoded = decode(content, background=background)
    if decoded.rgb is None:
        raise UnreadableError(decoded.problem)
    return decoded.rgb


def decode_alpha(content: bytes) -> Image.Image | None:
    """Decode the alpha channel, upright, 8-bit grey; None if the format or the picture has no transparency.

    Raises:
        UnreadableError: the bytes are damaged or cut short.
    """
    try:
        with opened(content) as image:
            if not image.has_transparency_data:
                return None
            return ImageOps.exif_transpose(image).convert("RGBA").getchannel("A")
    except Exception as error:  # damaged files raise almost any exception
        raise UnreadableError(_explain(error, content)) from error


def decode(content: bytes, max_pixels: int | None = None, background: str = "white") -> Decoded:
    """Decode a picture: upright by EXIF, colours in sRGB, transparent parts on the background. Never raises.

    Args:
        max_pixels: a picture with more pixels by its header is not decoded; None means no limit.
        background: a colour name or #rrggbb.
    """
    header = None
    try:
        with opened(content) as image:
            header = _header(image)
            if max_pixels is not None and header.pixels > max_pixels:
                return Decoded(header)
            _compare_png_checksums(content)
            _count_jpeg_passes(content)
            image.load()
            rgb, transparent, hidden = to_srgb(upright(image), background)
            return Decoded(header, rgb, None, transparent, hidden)
    except Image.DecompressionBombError as error:
        # Pillow refuses before the sides are known; its message holds their product.
        match = re.search(r"\((\d+) pixels\)", str(error))
        return Decoded(Header("", 0, 0, int(match[1]) if match else 2**31, animated=False))
    except Exception as error:  # noqa: BLE001  # damaged files raise almost any exception: struct.error, KeyError, ...
        return Decoded(header, None, _explain(error, content))


@contextmanager
def opened(content: bytes) -> Iterator[Image.Image]:
    """Open the picture without loading pixels, and silence the warnings of its decoder."""
    _silence_decoders()
    # Pillow warns of large pictures and odd metadata; the checks report both.
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content), formats=FORMATS) as image:
        yield image


def _header(image: Image.Image) -> Header:
    animated = image.format in _ANIMATED_FORMATS and bool(getattr(image, "is_animated", False))
    return Header(image.format or "", image.width, image.height, image.width * image.height, animated)


def _compare_png_checksums(content: bytes) -> None:
    """Raise UnreadableError for a damaged PNG: Pillow's PNG decoder accepts wrong checksums."""
    if not content.startswith(_PNG_START):
        return
    view, start = memoryview(content), len(_PNG_START)
    while start + 12 <= len(content):
        kind = content[start + 4 : start + 8]
        end = start + 8 + int.from_bytes(content[start : start + 4], "big")
        if end + 4 > len(content):
            raise UnreadableError("the file is cut short")
        if zlib.crc32(view[start + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            raise UnreadableError(f"the checksum of its part {kind.decode('ascii', 'replace')!a} does not match")
        if kind == b"IEND":
            return
        start = end + 4
    raise UnreadableError("the file is cut short")


def _count_jpeg_passes(content: bytes) -> None:
    """Raise UnreadableError for a progressive JPEG of too many passes: thousands would take hours."""
    passes = content.count(_JPEG_PASS) if content.startswith(b"\xff\xd8") else 0
    if passes > _MAX_JPEG_PASSES:
        raise UnreadableError(f"it is painted in {passes} passes, more than {_MAX_JPEG_PASSES}")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001  # damaged EXIF data must not lose the picture
        return 1


def upright(image: Image.Image) -> Image.Image:
    """Rotate the loaded picture by its EXIF data, if readable."""
    if image.format == "PNG" and not image.info:
        return image  # looking for EXIF data takes a tenth of the time of decoding an icon
    try:
        if image.getexif().get(_ORIENTATION, 1) == 1:
            return image  # avoids the copy by exif_transpose
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001  # damaged EXIF data must not lose the picture
        return image


def _explain(error: Exception, content: bytes) -> str:
    if not content:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        if kind := _unsupported_kind(content):
            return f"the bytes are {kind}, which is not read here; save it as PNG or JPEG and collect it again"
        if b"\0" not in content[:512] and _is_text(content[:512]):
            return "the bytes are text, not a picture"
        return f"the bytes are none of the formats {', '.join(FORMATS)}"
    if "truncated" in str(error).lower() or "cut short" in str(error):
        return "the file is cut short"
    return f"the file is damaged ({' '.join(str(error).split()) or type(error).__name__})"


_UNSUPPORTED = {b"8BPS": "a Photoshop file", b"%PDF": "a PDF", b"%!PS": "PostScript", b"\xff\x0a": "JPEG XL"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def _unsupported_kind(content: bytes) -> str | None:
    """Name the kind of a common image file that is not supported, or return None."""
    if content[4:8] == b"ftyp" and content[8:12] in _HEIC_BRANDS:
        return "HEIC, as phones write it"
    if content[4:8] == b"JXL ":
        return "JPEG XL"
    if b"<svg" in content[:1024]:
        return "an SVG drawing"
    return next((kind for start, kind in _UNSUPPORTED.items() if content.startswith(start)), None)


def _is_text(start: bytes) -> bool:
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(start) - 4  # a character cut in two at the end
    return True


@lru_cache(maxsize=1)
def _silence_decoders() -> None:
    """Stop libtiff and Pillow's log from writing to the terminal. Configured log handlers still get all records.

    Pillow raises an exception for every failure anyway.
    """
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # without a handler Python prints to stderr
    # libtiff writes directly to stderr. This has no effect on a Pillow without libtiff, or with hidden symbols.
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(_imaging.__file__)  # finds the symbols of the libtiff that it is linked with
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)
