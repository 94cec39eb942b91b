"""Captions of an item, from the first of four places that has any.

1. next to the image   `metadata.jsonl` or `.csv`, else `name.txt`, `name.caption`, `name.json`; columns of a dataset
2. inside the image    XMP, PNG text, EXIF
3. the folder's name   kohya's `10_name`
4. the file's name     `red-apple_2` -> "red apple 2"
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from typing import NamedTuple

from sdlora.data.sources.base import Item, SidecarInfo, one_line
from sdlora.data.sources.caption_limits import limited_captions
from sdlora.data.sources.embedded import embedded_captions
from sdlora.store.records import Caption

RULES_VERSION = "2"
"""Version of these rules. Raise it with every change of the rules, so that recorded captions are read again."""

MAX_REPEATS = 1000
"""Highest number that counts as repeats: the number in a folder `2024_holiday` is a year."""

_KOHYA = re.compile(r"(\d{1,4})_(.+)")


class FoundCaptions(NamedTuple):
    """Captions of an item, and the reasons why others are left out."""

    captions: tuple[Caption, ...]
    problems: tuple[str, ...]


def find_captions(item: Item, sidecar: SidecarInfo, content: Callable[[], bytes]) -> FoundCaptions:
    """Return the captions of an item. A place whose captions are all over the limits has none.

    Args:
        content: returns the image's bytes. Called only if `sidecar` has no captions.
    """
    captions, problems = sidecar.captions, sidecar.problems
    if not captions:
        captions, more_problems = limited_captions(embedded_captions(content()))
        problems += more_problems
    if not captions and item.caption_path:
        stem = posixpath.splitext(posixpath.basename(item.caption_path))[0]
        captions = caption_from_folder(item.caption_path) or caption_from_name(stem)
    if len(captions) >= 2:
        captions = tuple({caption.text: caption for caption in reversed(captions)}.values())[::-1]
    return FoundCaptions(captions, problems)


def caption_stamp(item: Item) -> str:
    """Return the stamp by which unchanged captions are recognised without reading them."""
    return f"{RULES_VERSION} {item.caption_stamp or ''}".rstrip()


def repeats_of(path: str) -> int | None:
    """Return the repeats per epoch in kohya's folder name `10_name`; None if the folder has no such name."""
    folder = _kohya_folder(path)
    return folder[0] if folder else None


def caption_from_folder(path: str) -> tuple[Caption, ...]:
    """Return the caption in kohya's folder name, if there is one: `10_sks dog/x.png` -> "sks dog"."""
    folder = _kohya_folder(path)
    text = one_line(folder[1].replace("_", " ")) if folder else ""
    return (Caption(text, "folder_name"),) if text else ()


def caption_from_name(stem: str) -> tuple[Caption, ...]:
    """Return the caption in a file name without its suffix: `red-apple_2` -> "red apple 2"."""
    text = one_line(stem.replace("-", " ").replace("_", " "))
    return (Caption(text, "file_name"),) if text else ()


def _kohya_folder(path: str) -> tuple[int, str] | None:
    """Return repeats and words of the folder's name."""
    folder = path.rpartition("/")[0].rpartition("/")[2]
    match = _KOHYA.fullmatch(folder)
    if match is None or not 1 <= int(match[1]) <= MAX_REPEATS:
        return None
    return int(match[1]), match[2]
