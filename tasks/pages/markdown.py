"""Markdown for the pages of Prefect and MLflow; captions, file names and the like are escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

# A bracket is escaped only where it could start a link, so intervals such as [0.1, 0.2] stay legible.
_MARKUP = re.compile(r"([\\`*_~|]|\](?=\s*[(\[:])|^[#>+=-])")
_BARE_LINK = re.compile(r"\b(https?|ftp|mailto)(:)|\b(www)(\.)", re.IGNORECASE)
_CELL_SPACE = "&emsp;"  # the cells of MLflow's tables stand close together


def markdown_text(text: object) -> str:
    """Escape prose or a table cell: markup, HTML and addresses have no effect."""
    words = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    escaped = _MARKUP.sub(r"\\\1", html.escape(words, quote=False))
    return _BARE_LINK.sub(lambda match: f"{match[1] or match[3]}\\{match[2] or match[4]}", escaped)


def markdown_code(text: object) -> str:
    """Format a code span. Code spans have no escapes, so the fence is longer than any run of backticks inside."""
    words = " ".join(str(text).split()).replace("|", "¦")
    fence = "`" * (max((len(run) for run in re.findall("`+", words)), default=0) + 1)
    return f"{fence} {words} {fence}" if "`" in words else f"{fence}{words}{fence}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table with escaped cells."""
    lines = [_row([markdown_text(cell) for cell in header]), _row(["---"] * len(header), space="")]
    return "\n".join([*lines, *(_row([markdown_text(cell) for cell in row]) for row in rows)])


def fitting(start: str, lines: Sequence[str], length: int) -> str:
    """Append as many whole lines to `start` as `length` allows; a cut line could end inside markup."""
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
