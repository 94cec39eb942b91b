"""Consoles of the command line: results on standard output, everything else on standard error.

All text passes one filter on its way to a terminal, `TerminalConsole.render`: captions, file names, errors, log lines.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from sdlora.core.printable import escape_controls

PIPED_WIDTH = 10_000
"""Columns without a terminal: a program that reads the output gets whole names and captions."""


class TerminalConsole(Console):
    """Console that escapes control characters in every text, and cuts nothing where no terminal is."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render an object; only Rich's own segments of control reach the terminal unescaped."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(escape_controls(segment.text), segment.style)

    def render_str(self, text: str, **options: Any) -> Text:
        """Convert a string; escapes count in the width, because they are made before the layout."""
        return super().render_str(escape_controls(text), **options)

    @property  # type: ignore[misc]  # Rich's size can also be set, which nothing here does
    def size(self) -> ConsoleDimensions:
        """Size in characters; COLUMNS sets the width without a terminal."""
        size = super().size
        if self.is_terminal or "COLUMNS" in os.environ:
            return size
        return ConsoleDimensions(PIPED_WIDTH, size.height)


console = TerminalConsole(highlight=False)
error_console = TerminalConsole(stderr=True, highlight=False)


@dataclass
class Verbosity:
    """Amount of output besides results and errors, from the options -q and -v."""

    quiet: bool = False
    verbose: bool = False


verbosity = Verbosity()


def plain(text: object) -> Text:
    """Return foreign text as it is: without markup, with control characters escaped."""
    return Text(escape_controls(str(text)))


def hint(text: str, **options: Any) -> None:
    """Print advice on what to do next, unless -q is given."""
    if not verbosity.quiet:
        console.print(text, **options)
