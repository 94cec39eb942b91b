"""What is said of an image, and where: beside it, inside it, or by its names. The first of these that speaks counts.

1. beside it    `metadata.jsonl` or `.csv`, else `name.txt`, `name.caption`, `name.json`; columns of a dataset
2. inside it    XMP, PNG text, EXIF
3. its folder   kohya's `10_name`
4. its name     `red-apple_2` -> "red apple 2"
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

from sdlora.data.sources.base import Item, SidecarInfo, one_line
from sdlora.data.sources.embedded import embedded_captions
from sdlora.store.records import Caption

RULES_VERSION = "1"
"""Raised when these rules change, so that recorded captions are found again."""

MAX_REPEATS = 1000
"""A folder `2024_holiday` above it means a year, not repeats."""

_KOHYA = re.compile(r"(\d{1,4})_(.+)")


def find_captions(item: Item, sidecar: SidecarInfo, content: Callable[[], bytes]) -> tuple[Caption, ...]:
    """The captions of an item; `content` is called only where nothing is said beside the image."""
    captions = sidecar.captions or embedded_captions(content())
    if not captions and item.caption_path:
        stem = posixpath.splitext(posixpath.basename(item.caption_path))[0]
        captions = caption_from_folder(item.caption_path) or caption_from_name(stem)
    if len(captions) < 2:
        return captions
    return tuple({caption.text: caption for caption in reversed(captions)}.values())[::-1]


def caption_stamp(item: Item) -> str:
    """By what unchanged captions are known without reading them."""
    return f"{RULES_VERSION} {item.caption_stamp or ''}".rstrip()


def repeats_of(path: str) -> int | None:
    """How often an epoch should show the image, as kohya's trainer reads it from the folder's name `10_name`."""
    folder = _kohya_folder(path)
    return folder[0] if folder else None


def caption_from_folder(path: str) -> tuple[Caption, ...]:
    """`10_sks dog/x.png` -> "sks dog"."""
    folder = _kohya_folder(path)
    text = one_line(folder[1].replace("_", " ")) if folder else ""
    return (Caption(text, "folder_name"),) if text else ()


def caption_from_name(stem: str) -> tuple[Caption, ...]:
    """`red-apple_2` -> "red apple 2"."""
    text = one_line(stem.replace("-", " ").replace("_", " "))
    return (Caption(text, "file_name"),) if text else ()


def _kohya_folder(path: str) -> tuple[int, str] | None:
    folder = path.rpartition("/")[0].rpartition("/")[2]
    match = _KOHYA.fullmatch(folder)
    if match is None or not 1 <= int(match[1]) <= MAX_REPEATS:
        return None
    return int(match[1]), match[2]
