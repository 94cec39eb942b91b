"""Which members of an archive are taken, by their names alone."""

from __future__ import annotations

import re

_DRIVE = re.compile(r"[A-Za-z]:")


def clean_name(name: str) -> str:
    """The member's path with `/`; archives made on Windows may have backslashes."""
    name = name.replace("\\", "/")
    return name[2:] if name.startswith("./") else name


def name_problem(name: str) -> str | None:
    """Why a member of this (clean) name is refused; None if it is not."""
    if any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in name):
        return "its name has control characters"
    if name.startswith("/") or _DRIVE.match(name):
        return "its path is absolute"
    if ".." in name.split("/"):
        return "its path leads out of the archive"
    return None
