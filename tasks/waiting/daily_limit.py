"""Daily limit of a style's training: runs that no person asked for end with a checkpoint, and the next day goes on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sdlora.core.errors import SdloraError
from sdlora.core.schedule import ScheduleConfig
from sdlora.store.image_store import ImageStore
from sdlora.store.training_hours import trained_today
from tasks.run_log import run_log
from tasks.waiting.asked_by import asked_by

_SHORTEST_WAIT_SECONDS = 1.0


class DailyLimitError(SdloraError):
    """End of a run at its daily limit; the run continues on the next day."""


def daily_limit_reached(schedule: ScheduleConfig, style: str, home: Path) -> str | None:
    """Return the reason why a run of the clock or of a trigger may not train today; None if it may."""
    if schedule.max_hours_a_day is None or asked_by() == "person":
        return None
    return _reason(schedule) if time_left(schedule, style, home) <= timedelta() else None


def time_left(schedule: ScheduleConfig, style: str, home: Path) -> timedelta:
    """Compute how long the style may still train today."""
    assert schedule.max_hours_a_day is not None
    with ImageStore.open(home) as store, store.read() as session:
        trained = trained_today(session, style, datetime.now(UTC), schedule.zone)
    return timedelta(hours=schedule.max_hours_a_day) - trained


@contextmanager
def stopping_at_daily_limit(schedule: ScheduleConfig, style: str, home: Path) -> Iterator[None]:
    """Stop a training at the daily limit, unless a person asked for it. It saves a checkpoint as at Ctrl-C.

    Raises:
        DailyLimitError: the limit was reached.
    """
    if schedule.max_hours_a_day is None or asked_by() == "person":
        yield
        return
    timer = _Timer(schedule, style, home)
    timer.start()
    try:
        yield
    except KeyboardInterrupt as error:
        if timer.is_reached:
            raise DailyLimitError(_reason(schedule)) from error
        raise
    finally:
        timer.end()


class _Timer(threading.Thread):
    def __init__(self, schedule: ScheduleConfig, style: str, home: Path) -> None:
        super().__init__(name="daily limit", daemon=True)
        self.is_reached = False
        self._schedule, self._style, self._home = schedule, style, home
        self._ended, self._lock, self._log = threading.Event(), threading.Lock(), run_log()

    def run(self) -> None:
        left = 0.0
        while not self._ended.wait(left):
            try:  # asked again each time: at midnight the time begins anew, and other runs of the style count, too
                left = time_left(self._schedule, self._style, self._home).total_seconds()
            except SdloraError:
                self._log.warning("The daily limit cannot be checked, training goes on.", exc_info=True)
                left = 60.0
            if left <= 0:
                break
            left = max(_SHORTEST_WAIT_SECONDS, left)
        with self._lock:
            if not self._ended.is_set():
                self.is_reached = True
                os.kill(os.getpid(), signal.SIGINT)

    def end(self) -> None:
        with self._lock:
            self._ended.set()


def _reason(schedule: ScheduleConfig) -> str:
    return (
        f"the style has trained {schedule.max_hours_a_day:g} hours today ({schedule.timezone}), which is its limit "
        "schedule.max_hours_a_day. The next run after midnight continues; a person's run is not bound."
    )
