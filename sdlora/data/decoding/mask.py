"""Decoding of masks, which weight the pixels of an image: white counts fully, black not at all."""

from __future__ import annotations

from PIL import Image

from sdlora.data.decoding.decode import UnreadableError, decode, upright_size

MAX_ASPECT_PX = 1
"""Allowed rounding of a mask's sides, in its own pixels, because a mask may be smaller than its image."""


def decode_mask(content: bytes, max_pixels: int | None = None) -> Image.Image:
    """Decode a mask to weights as 8-bit grey, upright. Colours count by brightness, transparent parts as black.

    Args:
        max_pixels: a mask with more pixels by its header is not decoded; None means no limit.
    Raises:
        UnreadableError: the bytes are damaged, or have too many pixels by their header.
    """
    decoded = decode(content, max_pixels, background="black")
    if decoded.rgb is None:
        pixels = decoded.header.pixels if decoded.header else 0
        raise UnreadableError(decoded.problem or f"it has {pixels:,} pixels, more than max_pixels = {max_pixels:,}")
    return decoded.rgb.convert("L")


def mask_problem(content: bytes, image: bytes, max_pixels: int) -> str | None:
    """Describe why these bytes cannot be the mask of an image; None if they can, or if the image is unreadable."""
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
