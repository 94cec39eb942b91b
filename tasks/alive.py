"""Detection of killed flow runs: each run holds a lock on a file of its own, which the kernel frees at its end.

Prefect learns of a run's end from the run itself. A run that is killed with its worker, or in a terminal, would stay
"Running" in Prefect's database for ever.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import StateType
from prefect.context import get_run_context
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed
from prefect.types._datetime import now

from tasks.alive_files import FOLDER, is_held
from tasks.notify.failures import KILLED, tell_killed
from tasks.private import private_folder

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

ACTIVE_STATES = (StateType.RUNNING, StateType.CANCELLING)
_TASK_MESSAGE = "The end of the task was not reported. The state of its run says how the run ended."


@contextmanager
def flow_run_alive(home: Path) -> Iterator[None]:
    """Hold the current flow run's lock for the length of the block; first mark killed runs as crashed."""
    folder = private_folder(home / FOLDER)
    crash_killed(home)
    path = folder / str(get_run_context().flow_run.id)  # type: ignore[union-attr]  # only flows call this
    descriptor, draft = tempfile.mkstemp(dir=folder, prefix=".")
    with os.fdopen(descriptor):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        Path(draft).rename(path)  # the file is locked before it gets its name
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def crash_killed(home: Path) -> list[str]:
    """Mark runs as crashed that the server calls running although their process is gone; return their names."""
    killed = []
    for path in _unlocked_files(home / FOLDER):
        with get_client(sync_client=True) as client:
            try:
                run = client.read_flow_run(UUID(path.name))
            except (ObjectNotFound, ValueError):  # the run of another server
                continue
            if run.state is not None and run.state.type in ACTIVE_STATES:
                _mark_crashed(client, run)
                killed.append(run)
        path.unlink(missing_ok=True)
    tell_killed(killed, home)
    return [run.name for run in killed]


def crash_unclaimed(home: Path, older_than_seconds: float) -> list[str]:
    """Mark every run as crashed that no process works on; return their names.

    The server must serve only this state folder. A run from a terminal gets its lock within seconds, so younger
    runs than `older_than_seconds` are left. A worker that starts a run ends with its server.
    """
    names = crash_killed(home)
    unclaimed = []
    states = {"type": {"any_": [*ACTIVE_STATES, StateType.PENDING]}}
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate({"state": states})):
            has_lock_file = (home / FOLDER / str(run.id)).exists()
            assert run.state is not None
            # A state of the future is from before the clock was set back.
            age_seconds = abs((now("UTC") - run.state.timestamp).total_seconds())
            if not has_lock_file and age_seconds > older_than_seconds:
                _mark_crashed(client, run)
                unclaimed.append(run)
        ended = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]
        _end_task_runs(client, FlowRunFilter.model_validate({"state": {"type": {"any_": ended}}}))
    tell_killed(unclaimed, home)
    return names + [run.name for run in unclaimed]


def crash_abandoned(home: Path, worker_since: datetime, with_process: Collection[UUID]) -> list[str]:
    """Mark runs as crashed that an earlier worker took and that have no process; return their names.

    A worker that is killed while it starts the process of a run leaves it "Pending", and no process ever claims it.

    Args:
        worker_since: start of today's worker, which starts what it took itself.
        with_process: runs whose process lives, also before it has its lock.
    """
    abandoned = []
    states = {"type": {"any_": [StateType.RUNNING, StateType.PENDING]}}
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate({"state": states})):
            assert run.state is not None
            is_of_earlier_worker = run.deployment_id is not None and run.state.timestamp < worker_since
            has_process = run.id in with_process or (home / FOLDER / str(run.id)).exists()
            if is_of_earlier_worker and not has_process:
                _mark_crashed(client, run)
                abandoned.append(run)
    tell_killed(abandoned, home)
    return [run.name for run in abandoned]


def _unlocked_files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("[!.]*") if not is_held(path)]


def _mark_crashed(client: SyncPrefectClient, run: FlowRun) -> None:
    client.set_flow_run_state(run.id, Crashed(message=KILLED), force=True)
    _end_task_runs(client, FlowRunFilter.model_validate({"id": {"any_": [run.id]}}))


def _end_task_runs(client: SyncPrefectClient, flow_runs: FlowRunFilter) -> None:
    """Mark task runs as crashed that the server calls running although their flow run has ended.

    Prefect learns the state of a task from events. Events that a killed process or server had in memory are lost.
    """
    states = {"type": {"any_": [StateType.RUNNING, StateType.PENDING]}}
    for task_run in client.read_task_runs(
        flow_run_filter=flow_runs, task_run_filter=TaskRunFilter.model_validate({"state": states})
    ):
        client.set_task_run_state(task_run.id, Crashed(message=_TASK_MESSAGE), force=True)
