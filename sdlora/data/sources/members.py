"""The members of an archive: which of them are images, which lie next to these, and which are refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sdlora.data.sources.base import Item, refused
from sdlora.data.sources.tree import Entry, Listing, is_hidden, is_image, speaks_of_images

REST = "…"
"""What reports call the members that nobody got to."""

_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class Member:
    """One member as its archive lists it. `problem` is why it is refused; `where` finds its bytes again."""

    name: str
    size: int = 0
    stamp: str | None = None
    where: Any = None
    is_folder: bool = False
    problem: str | None = None


def list_members(
    members: Iterable[Member], max_members: int, on_text: Callable[[Entry], None] = lambda _: None
) -> Listing:
    """Sort the members of an archive. Those that would leave it are refused, as is a second one of the same name.

    Args:
        on_text: called with each caption, metadata file and mask before the next member is listed.
    """
    images: list[Entry | Item] = []
    others: dict[str, Entry] = {}
    seen: set[str] = set()
    for number, member in enumerate(members):
        if number == max_members:
            images.append(refused(REST, f"all members after the first {number:,} (max_archive_members)"))
            break
        name = _clean_name(member.name)
        if member.is_folder or is_hidden(name):
            continue
        problem = _name_problem(name) or member.problem or ("a second member of this name" if name in seen else None)
        seen.add(name)
        entry = Entry(name, member.size, member.stamp, member.where)
        if problem:
            images.append(refused(name, problem))
        elif is_image(name.rpartition("/")[2]):
            images.append(entry)
        elif speaks_of_images(name.rpartition("/")[2]):
            others[name] = entry
            on_text(entry)
    return Listing(images, others)


def _clean_name(name: str) -> str:
    """The member's path with `/`; archives made on Windows may have backslashes."""
    name = name.replace("\\", "/")
    return name[2:] if name.startswith("./") else name


def _name_problem(name: str) -> str | None:
    """Why a member of this (clean) name is refused; None if it is not."""
    if any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in name):
        return "its name has control characters"
    if name.startswith("/") or _DRIVE.match(name):
        return "its path is absolute"
    if ".." in name.split("/"):
        return "its path leads out of the archive"
    return None
