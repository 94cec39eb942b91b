"""Masks: light where an image counts, dark where it does not."""

from __future__ import annotations

from PIL import Image

from sdlora.data.decoding.decode import UnreadableError, decode, upright_size

MAX_ASPECT_PX = 1
"""A mask may be smaller than its image, so each of its sides may be rounded by as many of its pixels."""


def decode_mask(content: bytes, max_pixels: int | None = None) -> Image.Image:
    """How much each pixel counts, 8-bit grey, upright; colours by their brightness, transparent parts as black.

    Args:
        max_pixels: a mask whose header promises more is not unpacked; None: any is.
    Raises:
        UnreadableError: the bytes are damaged, or promise too many pixels.
    """
    decoded = decode(content, max_pixels, background="black")
    if decoded.rgb is None:
        pixels = decoded.header.pixels if decoded.header else 0
        raise UnreadableError(decoded.problem or f"it has {pixels:,} pixels, more than max_pixels = {max_pixels:,}")
    return decoded.rgb.convert("L")


def mask_problem(content: bytes, image: bytes, max_pixels: int) -> str | None:
    """Why these bytes cannot be the mask of that image, in words; None if they can.

    Nothing is said of an image that cannot be read itself.
    """
    try:
        mask = decode_mask(content, max_pixels)
    except UnreadableError as error:
        return str(error)
    try:
        size = upright_size(image)
    except UnreadableError:
        return None
    if _fits(mask.size, size):
        return None
    return f"it has {mask.width} x {mask.height} pixels, not the proportions of the image's {size[0]} x {size[1]}"


def _fits(mask: tuple[int, int], image: tuple[int, int]) -> bool:
    (width, height), (image_width, image_height) = mask, image
    return (
        abs(width - height * image_width / image_height) <= MAX_ASPECT_PX
        or abs(height - width * image_height / image_width) <= MAX_ASPECT_PX
    )
