"""Foreign text in messages: names from files, archives and servers, escaped and shortened."""

from __future__ import annotations

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
