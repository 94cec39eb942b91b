"""End of a flow run's process with `sdlora up`, also when that is killed together with the worker.

A run outlives its worker, because `sdlora up` starts another one. Without `sdlora up` nobody would end the run, and its
server would never come back.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict

from deployments.servers.patience import lose_patience
from sdlora.processes.identity import ProcessIdentity
from sdlora.processes.subprocesses import SECONDS_TO_SAVE

UP = "SDLORA_UP_PROCESS"
"""Variable of the worker and its runs: the identity of `sdlora up` as JSON."""
_POLL_SECONDS = 1.0


def variables_of_up() -> dict[str, str]:
    """Return the variable that names this process as `sdlora up`."""
    return {UP: json.dumps(asdict(ProcessIdentity.of_this_process()))}


def end_with_up(
    variables: Mapping[str, str] = os.environ, seconds_to_save: float = SECONDS_TO_SAVE + 30.0
) -> threading.Thread | None:
    """Terminate this process once `sdlora up` has ended, and kill it if it is not done `seconds_to_save` later.

    Returns the thread that watches; None if no `sdlora up` has started this process.
    """
    if UP not in variables:
        return None
    up = ProcessIdentity(**json.loads(variables[UP]))
    thread = threading.Thread(target=_watch, args=(up, seconds_to_save), name="end with sdlora up", daemon=True)
    thread.start()
    return thread


def _watch(up: ProcessIdentity, seconds_to_save: float) -> None:
    while not up.has_ended:
        time.sleep(_POLL_SECONDS)
    lose_patience()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(seconds_to_save)
    os.kill(os.getpid(), signal.SIGKILL)
