"""Markdown for the pages of Prefect and MLflow; other people's text in it (captions, file names) stays text."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

# A bracket acts only before what makes it a link: intervals such as [0.1, 0.2] stay legible in the source.
_MARKUP = re.compile(r"([\\`*_~|]|\](?=\s*[(\[:])|^[#>+=-])")
_BARE_LINK = re.compile(r"\b(https?|ftp|mailto)(:)|\b(www)(\.)", re.IGNORECASE)
_CELL_SPACE = "&emsp;"  # the cells of MLflow's tables stand close together


def markdown_text(text: object) -> str:
    """Prose or a table cell: no markup, no HTML and no address in it acts."""
    words = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    escaped = _MARKUP.sub(r"\\\1", html.escape(words, quote=False))
    return _BARE_LINK.sub(lambda match: f"{match[1] or match[3]}\\{match[2] or match[4]}", escaped)


def markdown_code(text: object) -> str:
    """A code span, which knows no escapes: its fence is longer than any run of backticks within."""
    words = " ".join(str(text).split()).replace("|", "¦")
    fence = "`" * (max((len(run) for run in re.findall("`+", words)), default=0) + 1)
    return f"{fence} {words} {fence}" if "`" in words else f"{fence}{words}{fence}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; cells are escaped."""
    lines = [_row([markdown_text(cell) for cell in header]), _row(["---"] * len(header), space="")]
    return "\n".join([*lines, *(_row([markdown_text(cell) for cell in row]) for row in rows)])


def fitting(start: str, lines: Sequence[str], length: int) -> str:
    """`start`, and as many of the lines as there is room for; whole ones, or markup would end in the middle."""
    text = start
    for line in lines:
        longer = f"{text}\n{line}"
        if len(longer) > length:
            break
        text = longer
    return text


def _row(cells: Sequence[str], space: str = _CELL_SPACE) -> str:
    label, *values = cells
    return "| " + " | ".join([label, *(f"{space}{cell}" for cell in values)]) + " |"
