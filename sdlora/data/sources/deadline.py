"""Deadlines: one for everything that the reading of an item waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TypeVar, cast

T = TypeVar("T")


class DeadlineError(Exception):
    """End of an item's time, or of the pass that reads the item."""


@dataclass(frozen=True)
class Deadline:
    """Time limit of one item.

    Attributes:
        seconds: the limit, as in the settings and in messages.
        spent_seconds: time that earlier tries have used.
        stopped: ends the time early when set.
    """

    seconds: float
    spent_seconds: float = 0.0
    stopped: threading.Event = field(default_factory=threading.Event)
    started_at: float = field(default_factory=time.monotonic)

    @property
    def used_seconds(self) -> float:
        """Time used so far, with earlier tries."""
        return self.spent_seconds + time.monotonic() - self.started_at

    def left(self) -> float:
        """Return the seconds that are left, more than 0.

        Raises:
            DeadlineError: none are left, or the pass was stopped.
        """
        if self.stopped.is_set():
            raise DeadlineError("stopped")
        left = self.seconds - self.used_seconds
        if left <= 0:
            raise DeadlineError(f"not complete after url_total_seconds = {self.seconds:g}")
        return left


_current: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


@contextmanager
def deadline_of_item(deadline: Deadline) -> Iterator[None]:
    """Limit what this thread waits for to a deadline. Connections outlive items, so they look the deadline up."""
    token = _current.set(deadline)
    try:
        yield
    finally:
        _current.reset(token)


def seconds_left(timeout: float | None) -> float | None:
    """Return the shorter of a timeout and the time that the current deadline leaves; None for no limit.

    Raises:
        DeadlineError: the deadline is over.
    """
    deadline = _current.get()
    if deadline is None:
        return timeout
    return deadline.left() if timeout is None else min(timeout, deadline.left())


def call_within(seconds: float | None, function: Callable[[], T]) -> T:
    """Return the result of a call that cannot be given a timeout. After the time, its thread is left to itself.

    Args:
        seconds: None calls the function in this thread, without a limit.
    Raises:
        DeadlineError: the call takes longer.
    """
    if seconds is None:
        return function()
    results: SimpleQueue[tuple[bool, object]] = SimpleQueue()

    def run() -> None:
        try:
            results.put((True, function()))
        except BaseException as error:  # noqa: BLE001  # raised again by the waiting thread
            results.put((False, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        succeeded, value = results.get(timeout=seconds)
    except Empty:
        raise DeadlineError(f"no answer after {seconds:.3g} s") from None
    if not succeeded:
        raise cast("BaseException", value)
    return cast("T", value)
