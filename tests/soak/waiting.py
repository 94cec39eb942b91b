"""Waiting with an end."""

from __future__ import annotations

import time
from collections.abc import Callable


class SoakError(Exception):
    """The soak cannot go on: the servers do not come back, or a run does not end."""


def wait_until(condition: Callable[[], object], patience_seconds: float, what: str, poll_seconds: float = 0.2) -> None:
    """Raise `SoakError` if the condition does not come true in time."""
    deadline = time.monotonic() + patience_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SoakError(f"waited {patience_seconds:.0f} s for {what}")
        time.sleep(poll_seconds)
