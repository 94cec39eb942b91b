"""What an image looks like, small enough to keep for every image: four hashes to find it by, a thumbnail to compare."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from sdlora.data.alike.framing import Box, content_box, without_bars

VERSION = 3
"""Raised when the same pixels would get another fingerprint, or pairs another difference."""

THUMBNAIL_SIDE_PX = 32
_WORKING_SIDE_PX = 256
_ALL: Box = (0.0, 0.0, 1.0, 1.0)
_INNER: Box = (0.05, 0.05, 0.95, 0.95)
_UPPER: Box = (0.0, 0.0, 1.0, 0.88)

HASH_COUNT = 4
HASH_DISTANCE = 10
"""Pairs whose hashes differ in more of the 64 bits are not compared further."""

SEARCHES = ((0, 0), (1, 1), (0, 2), (2, 0), (1, 3), (3, 1))
"""Which of two images' hashes are compared: (of the one, of the other). See `Fingerprint.hashes`."""


@dataclass(frozen=True)
class Fingerprint:
    """The look of one image.

    Attributes:
        hashes: four unsigned 64-bit difference hashes: of the content, of the whole image, of the upper part of the
            content (what a caption bar over its bottom leaves), of the inner part of the image (what cropping leaves).
        aspect: width / height of the content.
        thumbnail: 32x32 RGB bytes of the content.
    """

    hashes: tuple[int, ...]
    aspect: float
    thumbnail: bytes


def fingerprint(image: Image.Image) -> Fingerprint:
    """Fingerprint of an RGB image."""
    image = image.reduce(max(1, max(image.size) // _WORKING_SIDE_PX))
    top, bottom = without_bars(np.asarray(image))
    # Cut off, not left out by a box below: resizing looks a little beyond its box.
    image = image.crop((0, top, image.width, bottom))
    content = content_box(np.asarray(image))
    left, up, right, down = content
    whole = (0.0, 0.0, float(image.width), float(image.height))
    side = THUMBNAIL_SIDE_PX
    small = image.resize((side, side), Image.Resampling.BICUBIC, box=content)
    grey = image.convert("L")
    return Fingerprint(
        hashes=(
            _difference_hash(grey, content),
            _difference_hash(grey, whole),
            _difference_hash(grey, _part(content, _UPPER)),
            _difference_hash(grey, _part(whole, _INNER)),
        ),
        aspect=(right - left) / (down - up),
        # Softened, so that resampling and half a pixel of movement change little, a different mouth much.
        thumbnail=small.filter(ImageFilter.GaussianBlur(0.8)).tobytes(),
    )


def _difference_hash(grey: Image.Image, box: Box) -> int:
    """Is each cell of an 8x8 grid brighter than its left neighbour? 64 bits, as imagehash.dhash has them."""
    cells = np.asarray(grey.resize((9, 8), Image.Resampling.LANCZOS, box=box))
    return int(np.packbits(cells[:, 1:] > cells[:, :-1]).view(">u8")[0])


def _part(box: Box, share: Box) -> Box:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    return left + share[0] * width, top + share[1] * height, left + share[2] * width, top + share[3] * height
