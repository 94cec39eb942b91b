"""Deferral of Ctrl-C and SIGTERM until work is saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """Request to end the run: half-done work is dropped and repeated when the run continues."""


class DeferredSignals:
    """Context that records SIGINT and SIGTERM in `received`; `deliver` raises the signal for the previous handlers.

    Outside the main thread the context does nothing, because Python delivers signals to the main thread only.
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
        """Stop between two units of work if a signal was recorded.

        Raises:
            Interrupted: a signal was recorded.
        """
        if self.received is not None:
            raise Interrupted

    def deliver(self) -> None:
        """Raise the recorded signal again under the previous handlers.

        Raises:
            KeyboardInterrupt: always; a previous handler may end the process or raise something else first.
        """
        self.__exit__(None, None, None)
        if self.received is not None:
            signal.raise_signal(self.received)
        raise KeyboardInterrupt

    def _note(self, number: int, _frame: FrameType | None) -> None:
        # A second Ctrl-C ends the run immediately. A second SIGTERM does not: launchers and service managers send it
        # to a process and to its parent, which passes the signal on.
        if self.received == number == signal.SIGINT:
            self.deliver()
        self.received = number
