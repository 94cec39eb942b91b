"""Damaged pictures of every format, from a seed: flipped bits, cuts, spliced parts, headers that lie."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import count

from PIL import Image

from tests.unit.data.drawing import drawing, encoded

VARIANTS = 30  # many damaged copies of few pictures would mostly test the search for near duplicates


@lru_cache(maxsize=VARIANTS)
def whole_pictures(variant: int = 0) -> list[bytes]:
    """One or two of each format and kind of compression; each variant shows other drawings."""
    seeds = range(10 * variant, 10 * variant + 10)
    rgb, alpha = drawing(seeds[1]), drawing(seeds[2]).convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(alpha.size))
    frames = [drawing(seed) for seed in seeds[3:5]]
    grey = drawing(seeds[5]).convert("L")
    return [
        encoded(rgb),
        encoded(alpha),
        encoded(drawing(seeds[6]).quantize(16)),
        encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        encoded(rgb, "JPEG"),
        encoded(rgb, "JPEG", progressive=True, quality=95, exif=Image.Exif().tobytes()),
        encoded(rgb.convert("CMYK"), "JPEG"),
        encoded(rgb, "WEBP"),
        encoded(alpha, "WEBP", lossless=True),
        encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        encoded(rgb, "GIF"),
        encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        encoded(rgb, "BMP"),
        encoded(rgb, "TIFF"),
        encoded(rgb, "TIFF", compression="tiff_lzw"),
        encoded(rgb, "TIFF", compression="tiff_deflate"),
        encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:]),
        encoded(rgb, "AVIF"),
        encoded(rgb, "JPEG2000"),
        encoded(grey, "PPM"),
        encoded(rgb, "ICO", sizes=[(64, 64)]),
        encoded(rgb, "TGA"),
        encoded(rgb, "TGA", compression="tga_rle"),
        encoded(rgb, "QOI"),
    ]


def damaged(seed: int) -> Iterator[bytes]:
    """Endless, all different. Each of the pictures above in turn, damaged in one to three ways."""
    dice = random.Random(seed)
    seen: set[bytes] = set()
    for turn in count():
        pictures = whole_pictures(turn % VARIANTS)
        seen.update(pictures)
        for picture in pictures:
            content = bytearray(picture)
            for _ in range(dice.choice((1, 1, 2, 3))):
                dice.choice(WAYS)(content, dice, pictures)
            if bytes(content) not in seen:
                seen.add(bytes(content))
                yield bytes(content)


def _flip_bits(content: bytearray, dice: random.Random, _: list[bytes]) -> None:
    for _ in range(dice.choice((1, 3, 20))):
        if content:
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)


def _cut(content: bytearray, dice: random.Random, _: list[bytes]) -> None:
    del content[dice.randrange(len(content) + 1) :]


def _splice(content: bytearray, dice: random.Random, pictures: list[bytes]) -> None:
    """Put a part of some picture, or of this one, in the place of another part."""
    source = dice.choice([bytes(content), dice.choice(pictures)])
    start, length = dice.randrange(len(source) + 1), dice.choice((4, 64, 2000))
    place = dice.randrange(len(content) + 1)
    content[place : place + dice.choice((0, length))] = source[start : start + length]


def _lie(content: bytearray, dice: random.Random, _: list[bytes]) -> None:
    """Overwrite a number in the header by one that is far off."""
    if len(content) > 8:
        place = dice.randrange(4, min(len(content), 80))
        value = dice.choice((0, 1, 0x7F, 0xFFFF, 40_000, 0x7FFF_FFFF, 0xFFFF_FFFF, dice.randrange(2**32)))
        content[place : place + 4] = value.to_bytes(4, dice.choice(("big", "little")))


def _lie_with_good_checksums(content: bytearray, dice: random.Random, pictures: list[bytes]) -> None:
    """As above, but PNG's checksums are made to fit, so that what lies behind them is reached."""
    _lie(content, dice, pictures)
    start = 8
    while content[:4] == b"\x89PNG" and start + 12 <= len(content):
        end = start + 8 + int.from_bytes(content[start : start + 4], "big")
        content[end : end + 4] = zlib.crc32(content[start + 4 : end]).to_bytes(4, "big") if end < len(content) else b""
        start = end + 4


def _blank_out(content: bytearray, dice: random.Random, _: list[bytes]) -> None:
    place = dice.randrange(len(content) + 1)
    length = min(dice.choice((2, 16, 300)), len(content) - place)
    content[place : place + length] = bytes([dice.choice((0, 255))]) * length


def _append(content: bytearray, dice: random.Random, pictures: list[bytes]) -> None:
    content += dice.choice([b"\0" * 100, dice.choice(pictures), b"<html>"])


WAYS: tuple[Callable[[bytearray, random.Random, list[bytes]], None], ...] = (
    _flip_bits,
    _cut,
    _splice,
    _lie,
    _lie_with_good_checksums,
    _blank_out,
    _append,
)
