"""Ctrl-C and SIGTERM wait until what is done is saved, and what cannot be saved half-done is left for later."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """Somebody wants the run to end: what is half-done is dropped here, and done again when the run continues."""


class DeferredSignals:
    """While active, SIGINT and SIGTERM are noted in `received`; `deliver` hands them to whom they were meant for.

    Outside the main thread, where Python delivers no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> DeferredSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def check(self) -> None:
        """For work of many parts, between two of them.

        Raises:
            Interrupted: a signal was noted.
        """
        if self.received is not None:
            raise Interrupted

    def deliver(self) -> None:
        """Raise the noted signal again under the previous handlers.

        Raises:
            KeyboardInterrupt: always; a previous handler may end the process or raise something else first.
        """
        self.__exit__(None, None, None)
        if self.received is not None:
            signal.raise_signal(self.received)
        raise KeyboardInterrupt

    def _note(self, number: int, _frame: FrameType | None) -> None:
        # The second Ctrl-C means: now. A second SIGTERM does not: launchers and service managers send it to a process
        # and to its parent, which passes it on.
        if self.received == number == signal.SIGINT:
            self.deliver()
        self.received = number
