"""Foreign text in messages: names from files, archives and servers, escaped and shortened."""

from __future__ import annotations

import reprlib
from typing import Any

from sdlora.core.printable import escape_controls

_MAX_CHARACTERS = 80


def quoted(text: object, length: int = _MAX_CHARACTERS) -> str:
    r"""Quote a foreign name for a message: quotation marks, escapes, at most `length` characters of the name.

    Control characters, line breaks and marks of writing direction become escapes such as `\x1b`, so that a name
    cannot change a terminal or a line of a log. A long name is cut in its middle, because its end often differs.
    """
    return repr(_shortened(text, length))


def escaped(text: object, length: int = 4 * _MAX_CHARACTERS) -> str:
    """Escape and shorten foreign text like `quoted`, without quotation marks: for the message of another library."""
    return repr(f'"{_shortened(text, length)}')[2:-1].replace("\\'", "'")


def _shortened(value: object, length: int) -> str:
    try:
        text = str(value)
    except ValueError:  # a whole number of thousands of digits
        text = f"a {type(value).__name__}"
    if len(text) <= length:
        return text
    start = length * 2 // 3
    return f"{text[:start]}...{text[len(text) - (length - start) :]}"


def excerpt(value: Any) -> str:
    """Return the start of `repr(value)`, escaped: of a container only the first levels and items.

    Unlike `quoted`, it never writes the whole of a large or deep container, and keeps the quotation marks of texts.
    """
    return escape_controls(_shortened(_excerpts.repr(value), 300), keep="")


class _Excerpts(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlong = 3, 40
        self.maxstring = self.maxother = 60
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = 4

    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:  # Python writes no whole number of more than 4,300 digits
            return f"a number of about {int(x.bit_length() * 0.30103) + 1} digits"


_excerpts = _Excerpts()
