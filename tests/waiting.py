"""Waiting for what another thread, process or server does, however slow the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 300.0
"""Time after which a wait is a failure. On an idle machine, most waits take less than a second."""


def wait_until(condition: Callable[[], T], what: str = "it", patience_seconds: float = PATIENCE_SECONDS) -> T:
    """Return the first true value of a condition."""
    deadline = time.monotonic() + patience_seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen in {patience_seconds:.0f} s"
        time.sleep(0.02)
    return found


def pass_midnight(margin_seconds: float = 60.0) -> None:
    """Wait for the next day if it is near, so that a test of today's sums begins and ends on the same day in UTC."""
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    if (midnight - now).total_seconds() < margin_seconds:
        time.sleep((midnight - now).total_seconds() + 0.1)
