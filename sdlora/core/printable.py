r"""Foreign text made safe to show: control and direction marks become escapes such as `\x1b` and `\u202e`."""

from __future__ import annotations

import unicodedata

_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
"""Unicode categories of characters without a glyph: controls, formats, surrogates, line and paragraph separators."""
_JOINERS = "\u200c\u200d"
"""Joiners inside words and emoji; they move nothing."""


def escape_controls(text: str, keep: str = "\n") -> str:
    """Escape every character that a terminal or a page obeys rather than shows.

    Args:
        text: any text, also with lone surrogates.
        keep: control characters that stay.
    """
    if text.isprintable():
        return text
    return "".join(_escaped(char) if char not in keep else char for char in text)


def _escaped(char: str) -> str:
    if char in _JOINERS or unicodedata.category(char) not in _HIDDEN:
        return char
    return char.encode("unicode_escape").decode("ascii")
