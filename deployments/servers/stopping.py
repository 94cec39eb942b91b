"""Stop of a running `sdlora up` from another process."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from deployments.servers.running import stack_process
from deployments.servers.services import ServiceError
from deployments.servers.status import stack_state
from tasks.alive_files import held_runs

STOP_SECONDS = 180.0
"""Longest time from the signal to the end: a training saves a checkpoint first."""


@dataclass(frozen=True)
class Stopped:
    """What `sdlora up` has stopped.

    Attributes:
        services: names of the services that ran.
        ended_runs: names of runs that saved and ended with the worker.
        other_runs: names of runs that go on, because a terminal or another program started them.
    """

    services: tuple[str, ...]
    ended_runs: tuple[str, ...]
    other_runs: tuple[str, ...]


def stop_stack(home: Path, timeout_seconds: float = STOP_SECONDS) -> Stopped | None:
    """Stop the `sdlora up` of `home` as Ctrl-C does, and wait for its end; None if none runs.

    Raises:
        ServiceError: it did not end within `timeout_seconds`.
    """
    pid = stack_process(home)
    if pid is None:
        return None
    state = stack_state(home)
    names = {run.id: run.name for run in state.runs or ()}
    before = held_runs(home)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout_seconds
    while psutil.pid_exists(pid) and stack_process(home) == pid:
        if time.monotonic() > deadline:
            raise ServiceError(
                f"`sdlora up` (process {pid}) has not ended within {timeout_seconds:.0f} s. Its logs: {home / 'logs'}. "
                f"To end it at once: kill -9 {pid}; what was saved stays."
            )
        time.sleep(0.2)
    after = held_runs(home)
    return Stopped(
        tuple(service.name for service in state.services if service.state != "down"),
        tuple(names.get(run, run) for run in sorted(before - after)),
        tuple(names.get(run, run) for run in sorted(after)),
    )
