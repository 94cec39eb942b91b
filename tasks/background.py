"""Reports that are sent in the background, so that work never waits for a server."""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Hashable

_POLL_SECONDS = 0.5  # a wait in slices can be interrupted by Ctrl-C


class BackgroundSender:
    """Thread that makes calls in their order. It is a daemon: a process that ends does not wait for it.

    A call that fails is logged, and the next one is made. Calls see the context of `submit`, such as the running task.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: dict[Hashable, Callable[[], object]] = {}
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = False

    def submit(self, call: Callable[[], object], key: Hashable = None) -> None:
        """Add a call. A call of the same key that still waits is replaced, unless `key` is None."""
        context = contextvars.copy_context()
        with self._change:
            self._calls[object() if key is None else key] = lambda: context.run(call)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
            self._change.notify_all()

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until all calls were made; return False if some were not within `timeout_seconds`."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        with self._change:
            while self._calls or self._busy:
                if deadline is not None and time.monotonic() >= deadline:
                    return False
                self._change.wait(_POLL_SECONDS)
        return True

    def _work(self) -> None:
        while True:
            with self._change:
                self._busy = False
                self._change.notify_all()
                while not self._calls:
                    self._change.wait()
                call = self._calls.pop(next(iter(self._calls)))
                self._busy = True
            try:
                call()
            except Exception:
                logging.getLogger(__name__).warning("%s: a report was not sent", self._name, exc_info=True)
