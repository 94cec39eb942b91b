"""Supervision of the servers of `sdlora up`: one that ends is started again, after a wait that grows."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from deployments.servers.running import watcher_works
from deployments.servers.services import Service, answers

_log = logging.getLogger(__name__)
_CHECK_SECONDS = 1.0
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0
HEALTH = {"prefect": "/api/health", "mlflow": "/health"}
"""Paths at which servers answer without credentials."""
START_SECONDS = 180.0
"""Time in which a server that was started again has to answer."""
STEADY_SECONDS = 300.0
"""Time after which an earlier end no longer counts."""


def prefect_command() -> list[str]:
    """Return the command of a Prefect server that listens at the socket on its standard input."""
    # `prefect server start` does the same, but cannot be given a socket.
    app = ("--factory", "deployments.servers.prefect_server:create_app")
    return [sys.executable, "-m", "uvicorn", *app, "--fd", "0", "--log-level", "warning", "--lifespan", "on"]


@dataclass
class _Watched:
    service: Service
    is_ready: Callable[[], bool]
    ends: int = 0
    started_at: float = field(default_factory=time.monotonic)
    start_at: float | None = None
    starting: bool = False


class Supervisor:
    """Watch over services, by `check` about once a second.

    Args:
        echo: takes a line for the terminal for each end and each start.
        on_ready: called when a service that was started again is ready.
    """

    def __init__(
        self, echo: Callable[[str], None], on_ready: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._echo, self._on_ready, self._clock = echo, on_ready, clock
        self._watched: list[_Watched] = []

    def add(self, service: Service, is_ready: Callable[[], bool] = lambda: True) -> None:
        self._watched.append(_Watched(service, is_ready, started_at=self._clock()))

    @property
    def down(self) -> Sequence[str]:
        """Names of services that have ended or do not answer yet."""
        return [watched.service.name for watched in self._watched if watched.start_at is not None or watched.starting]

    def check(self) -> None:
        """Start what has ended and whose wait is over."""
        for watched in self._watched:
            self._check(watched)

    def _check(self, watched: _Watched) -> None:
        service, now = watched.service, self._clock()
        if watched.start_at is not None:
            if now >= watched.start_at:
                watched.start_at, watched.starting, watched.started_at = None, True, now
                service.restart()
        elif service.ended:
            self._plan(watched, service.ending)
        elif watched.starting:
            if watched.is_ready():
                watched.starting = False
                self._echo(f"{service.name} answers again.")
                self._on_ready()
            elif now - watched.started_at > START_SECONDS:
                service.stop()
                self._plan(watched, f"did not answer within {START_SECONDS:.0f} s")

    def _plan(self, watched: _Watched, how: str) -> None:
        now = self._clock()
        if now - watched.started_at > STEADY_SECONDS:
            watched.ends = 0
        wait_seconds = min(FIRST_WAIT_SECONDS * 2**watched.ends, LONGEST_WAIT_SECONDS)
        watched.ends += 1
        watched.start_at, watched.starting = now + wait_seconds, False
        service = watched.service
        self._echo(f"{service.name} {how}. It starts again in {wait_seconds:.0f} s. Its log: {service.log}")


class SupervisorThread(threading.Thread):
    """Thread that checks every second; on Linux a process that it has started ends with this thread.

    It is a thread, because the caller may wait for a server that only the supervisor can start.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        super().__init__(name="supervisor", daemon=True)
        self._supervisor, self._stopping = supervisor, threading.Event()
        self.start()

    def run(self) -> None:
        while not self._stopping.wait(_CHECK_SECONDS):
            try:
                self._supervisor.check()
            except Exception:  # noqa: BLE001  # such as a full disk; Linux ends with this thread what it started
                _log.exception("The servers could not be checked; the next second tries again")

    def stop(self) -> None:
        """End the thread before the services are stopped, so that none is started again."""
        self._stopping.set()
        self.join()


def supervise(
    services: Mapping[str, tuple[str | None, Service]],
    home: Path,
    echo: Callable[[str], None],
    on_ready: Callable[[], None],
) -> Supervisor:
    """Return a supervisor of services of a state folder by name, each with its address; a worker has none."""
    supervisor = Supervisor(echo, on_ready)
    for name, (url, service) in services.items():
        is_ready = partial(answers, url + HEALTH[name]) if url else lambda: True
        supervisor.add(service, partial(watcher_works, home) if name == "watcher" else is_ready)
    return supervisor
