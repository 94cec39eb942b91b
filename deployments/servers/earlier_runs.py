"""Flow runs whose worker has ended: their processes go on.

A new worker counts them and ends those that a person cancels in Prefect's page. `sdlora down` ends them.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import psutil

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

SCRIPT = str(Path("deployments", "servers", "flow_process.py"))
"""End of the path of the script that a worker starts for a flow run, in whatever checkout."""
GRACE_SECONDS = 30.0
"""Time from a cancelled run's SIGTERM to its SIGKILL, the same as Prefect's."""


class EarlierRuns:
    """Flow runs of a state folder that earlier workers have started and that go on when a new worker starts."""

    def __init__(self, home: Path) -> None:
        self._processes = flow_processes(home)
        self._kill_at: dict[UUID, float] = {}

    async def going_on(self, client: PrefectClient) -> dict[UUID, FlowRun]:
        """Return the runs whose processes live, by id; stop those that a person has cancelled.

        Call it every few seconds. Prefect's own observer of cancels knows only the runs of its own worker.
        """
        # `sdlora up` imports this module before it has set the variables that Prefect reads when it is imported.
        from prefect.exceptions import ObjectNotFound
        from prefect.states import Cancelled

        found = {}
        for key, process in list(self._processes.items()):
            try:
                run = await client.read_flow_run(key)
            except ObjectNotFound:  # deleted meanwhile
                del self._processes[key]
                continue
            is_cancelling = run.state is not None and run.state.is_cancelling()
            if lives(process):
                found[key] = run
                if is_cancelling:
                    self._stop(key, process)
                continue
            del self._processes[key]
            if is_cancelling or key in self._kill_at:
                await client.set_flow_run_state(key, Cancelled(), force=True)
        return found

    def _stop(self, key: UUID, process: psutil.Process) -> None:
        now = time.monotonic()
        with contextlib.suppress(psutil.NoSuchProcess):
            if key not in self._kill_at:
                self._kill_at[key] = now + GRACE_SECONDS
                process.terminate()
            elif now >= self._kill_at[key]:
                process.kill()


def flow_processes(home: Path) -> dict[UUID, psutil.Process]:
    """Find the living processes of flow runs that workers of a state folder have started, by the flow run's id.

    A process is known by its command and its variables, so a flow run counts from its first moment, and after any
    death of a worker or of `sdlora up`. Runs of a terminal are not among them.
    """
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, KeyError, ValueError):  # it has ended, or is another user's
            if not any(word.endswith(SCRIPT) for word in process.cmdline()) or not lives(process):
                continue
            variables = process.environ()
            if Path(variables["SDLORA_HOME"]).resolve() == home.resolve():
                found[UUID(variables["PREFECT__FLOW_RUN_ID"])] = process
    return found


def lives(process: psutil.Process) -> bool:
    """Return True while this very process runs; False if it has ended, is not yet reaped, or its id is another's."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
