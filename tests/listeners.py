"""Listeners for tests."""

from __future__ import annotations

from sdlora.core.progress import Listener


class Notes(Listener):
    """Keeps what a run says about itself."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_note(self, text: str) -> None:
        self.lines.append(text)
