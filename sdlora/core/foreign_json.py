"""Parsing of JSON that strangers wrote: bounded in size and depth, with one kind of error."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

MAX_DEPTH = 64
"""Levels of lists and objects; known files have fewer than ten."""


def parse_json(text: str | bytes, max_bytes: int) -> Any:
    """Parse JSON within bounds, so that reading and later walks of the value cannot exhaust memory or stack.

    NaN and Infinity are accepted, because schedulers of diffusers have them in their files.

    Args:
        text: JSON, as UTF-8 if it is bytes.
        max_bytes: most characters or bytes of `text`; the value takes up to thirty times as much memory.

    Raises:
        ValueError: `text` is no JSON, too long or too deep, or has a number of thousands of digits.
    """
    if len(text) > max_bytes:
        raise ValueError(f"{len(text):,} bytes of JSON, at most {max_bytes:,} are read")
    too_deep = f"lists or objects are nested more than {MAX_DEPTH} deep"
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(too_deep) from None
    level = _containers([value])
    for _ in range(MAX_DEPTH):
        level = _containers(item for one in level for item in (one.values() if isinstance(one, dict) else one))
    if level:
        raise ValueError(too_deep)
    return value


def _containers(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, dict | list)]
