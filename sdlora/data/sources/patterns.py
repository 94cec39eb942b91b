"""Addresses that mean several: `{000..015}` and `{a,b}`, as shells and WebDataset write them."""

from __future__ import annotations

import re
from itertools import product

from sdlora.core.errors import DataError

MAX_ADDRESSES = 100_000

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def expand(uri: str) -> list[str]:
    """`x-{08..10}.tar` -> `x-08.tar`, `x-09.tar`, `x-10.tar`. What has no braces is itself alone.

    Raises:
        DataError: they mean more than 100,000 addresses.
    """
    parts = _BRACES.split(uri)  # text, inside of braces, text, ...
    choices = [_choices(part) if number % 2 else [part] for number, part in enumerate(parts)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MAX_ADDRESSES:
        raise DataError(f"data.sources: {uri!r} means {count:,} addresses, expected at most {MAX_ADDRESSES:,}.")
    return ["".join(chosen) for chosen in product(*choices)]


def _choices(inside: str) -> list[str]:
    if match := _RANGE.fullmatch(inside):
        first, last = int(match[1]), int(match[2])
        if last - first >= MAX_ADDRESSES:
            raise DataError(f"data.sources: {{{inside}}} means more than {MAX_ADDRESSES:,} addresses.")
        width = len(match[1]) if match[1].startswith("0") or len(match[1]) == len(match[2]) else 0
        return [str(number).zfill(width) for number in range(first, last + 1)]
    return inside.split(",") if "," in inside else ["{" + inside + "}"]
