"""Members of an archive, sorted into images, annotations and refused members."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sdlora.data.sources.base import Item, refused_item
from sdlora.data.sources.caption_limits import MAX_NAME_CHARS
from sdlora.data.sources.memory import MemoryBudget, size_of
from sdlora.data.sources.tree import Entry, Listing, is_annotation, is_hidden, is_image

UNLISTED_MEMBERS = "…"
"""Path under which reports name the members that could not be listed."""

_MEMBER_BYTES, _REFUSED_BYTES = 300, 600
"""Bytes in memory of a listed member and of a refused one, without name and stamp (measured with tracemalloc)."""

_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class Member:
    """Member of an archive, as listed.

    Attributes:
        location: the archive's means to find the bytes of the member.
        problem: reason to refuse the member; None if the archive has none.
    """

    name: str
    size: int = 0
    stamp: str | None = None
    location: Any = None
    is_folder: bool = False
    problem: str | None = None


def list_members(
    members: Iterable[Member],
    max_members: int,
    memory: MemoryBudget,
    on_annotation: Callable[[Entry], None] = lambda _: None,
) -> Listing:
    """Sort the members of an archive. A path that leads out of the archive is refused, as is a repeated name.

    Args:
        max_members: members after this number are not listed.
        memory: members for which there is no memory are not listed.
        on_annotation: called with each caption, metadata file and mask before the next member is listed.
    """
    images: list[Entry | Item] = []
    annotations: dict[str, Entry] = {}
    seen_names: set[str] = set()
    for number, member in enumerate(members):
        if number == max_members:
            images.append(
                refused_item(UNLISTED_MEMBERS, f"all members after the first {number:,} (max_archive_members)")
            )
            break
        name = _clean_name(member.name)
        if member.is_folder or is_hidden(name):
            continue
        problem = (
            _name_problem(name) or member.problem or ("a second member of this name" if name in seen_names else None)
        )
        if not memory.take((_REFUSED_BYTES if problem else _MEMBER_BYTES) + size_of(name, member.stamp)):
            images.append(refused_item(UNLISTED_MEMBERS, f"all members after the first {number:,}: {memory.excess}"))
            break
        seen_names.add(name)
        entry = Entry(name, member.size, member.stamp, member.location)
        if problem:
            images.append(refused_item(name, problem))
        elif is_image(name.rpartition("/")[2]):
            images.append(entry)
        elif is_annotation(name.rpartition("/")[2]):
            annotations[name] = entry
            on_annotation(entry)
    return Listing(images, annotations)


def _clean_name(name: str) -> str:
    """Return the member's path with `/`. Archives made on Windows may have backslashes."""
    name = name.replace("\\", "/")
    return name[2:] if name.startswith("./") else name


def _name_problem(name: str) -> str | None:
    """Return the reason to refuse a member with this clean name; None if there is none."""
    if len(name) > MAX_NAME_CHARS:
        return f"its path has {len(name):,} characters, more than {MAX_NAME_CHARS:,}"
    if any(ord(char) < 32 or 127 <= ord(char) < 160 for char in name):
        return "its name has control characters"
    if name.startswith("/") or _DRIVE.match(name):
        return "its path is absolute"
    if ".." in name.split("/"):
        return "its path leads out of the archive"
    return None
