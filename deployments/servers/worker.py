"""Worker that runs flows as processes, and starts few processes that would only wait in the queue.

python -m deployments.servers.worker    # PREFECT_API_URL, its credentials and SDLORA_HOME are set

Twenty schedules at three o'clock make twenty flow runs. Prefect's own worker would start twenty processes, each of some
hundred megabytes, or with `--limit` let a person's run wait behind all of them. This worker leaves runs that it does
not start yet to Prefect, where they are "Late", cost nothing, survive a restart, and can be cancelled.
"""

from __future__ import annotations

import abc
import asyncio
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect import Flow
from prefect.settings import PREFECT_WORKER_QUERY_SECONDS, Settings, temporary_settings
from prefect.utilities.processutils import setup_signal_handlers_worker
from prefect.workers import process
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

from deployments.environment import POOL
from deployments.servers.earlier_runs import EarlierRuns
from deployments.servers.garbage import collect_garbage_often
from deployments.servers.patience import wait_for_prefect
from sdlora.processes.slots import DEVICES, slots_of
from sdlora.store.starts import KEY_PREFIX
from tasks.home import state_folder

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import WorkerFlowRunResponse

TRAINING_FLOWS = {"retrain", "compare", "pretrain"}
POLL_SECONDS = 2.0
"""Time between two looks for due runs. Prefect's default, 10 s, is as long as the start of a run's process."""
WAITING = 2
"""Number of processes that may wait for a slot. The clock's runs have so many, and people's runs as many again."""


def admitted(
    due: Sequence[FlowRun], active: Collection[FlowRun], flow_names: Mapping[UUID, str], slots: int
) -> list[FlowRun]:
    """Choose the flow runs that get a process now: people's first, then in the order of their times.

    Runs that train nothing always get one. A training gets one while fewer trainings than the slots and the allowed
    waiting ones have one. The clock and triggers leave `WAITING` of these processes to people.

    Args:
        due: flow runs without a process.
        active: flow runs with a process.
        flow_names: names of the flows of both by the flows' ids.
    """
    trainings = [run for run in active if flow_names[run.flow_id] in TRAINING_FLOWS]
    chosen = []
    for run in sorted(due, key=_precedence):
        if flow_names[run.flow_id] in TRAINING_FLOWS:
            unattended = sum(map(_is_unattended, trainings))
            if len(trainings) >= slots + 2 * WAITING or (_is_unattended(run) and unattended >= slots + WAITING):
                continue
            trainings.append(run)
        chosen.append(run)
    return chosen


def _precedence(run: FlowRun) -> tuple[bool, str]:
    time = run.expected_start_time
    return _is_unattended(run), time.isoformat() if time else ""


def _is_unattended(run: FlowRun) -> bool:
    """Return True for a run of the clock or of a trigger; `tasks.waiting.asked_by` tells them apart in the same way."""
    is_triggered = run.created_by is not None and run.created_by.type == "AUTOMATION"
    return bool(run.auto_scheduled) or is_triggered or (run.idempotency_key or "").startswith(KEY_PREFIX)


class QueueWorker(ProcessWorker, abc.ABC):  # Prefect registers a type of workers unless ABC is among the bases
    """Process worker that starts the flow runs that `admitted` chooses.

    Args:
        slots: number of trainings at once.
        home: state folder. Its flow runs that an earlier worker has started count as this worker's own.
    """

    def __init__(self, *arguments: Any, slots: int, home: Path, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._slots = slots
        self._earlier = EarlierRuns(home)
        self._active: dict[UUID, FlowRun] = {}
        self._flow_names: dict[UUID, str] = {}

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: Any = None,  # of anyio, which sdlora does not require itself
    ) -> ProcessWorkerResult:
        """Run the process of a flow run to its end."""
        self._active[flow_run.id] = flow_run
        try:
            return await super().run(flow_run, configuration, task_status)
        finally:
            self._active.pop(flow_run.id, None)

    async def _submit_scheduled_flow_runs(self, flow_run_response: list[WorkerFlowRunResponse]) -> list[FlowRun]:
        return await super()._submit_scheduled_flow_runs(await self.admitted(flow_run_response))

    async def admitted(self, flow_run_response: list[WorkerFlowRunResponse]) -> list[WorkerFlowRunResponse]:
        """Choose the scheduled runs that get a process now, and those that are being submitted."""
        runs = {entry.flow_run.id: entry.flow_run for entry in flow_run_response}
        earlier = await self._earlier.going_on(self.client)
        for run in (*runs.values(), *earlier.values()):
            if run.flow_id not in self._flow_names:
                self._flow_names[run.flow_id] = (await self.client.read_flow(run.flow_id)).name
        # A run that is being submitted has no process for a moment.
        submitting = {key: run for key, run in runs.items() if key in self._submitting_flow_run_ids}
        active = self._active | submitting | earlier
        due = [run for key, run in runs.items() if key not in active]
        chosen = {run.id for run in admitted(due, active.values(), self._flow_names, self._slots)}
        return [entry for entry in flow_run_response if entry.flow_run.id in chosen | submitting.keys()]


async def _hooks_of_worker(flow_run: FlowRun) -> Flow[Any, Any]:
    """Return a flow that has the hooks of every flow here, which the worker runs after the death of a process.

    Prefect would import the run's flow and all its libraries into this process, which lives for months.
    """
    from tasks.notify.failures import tell_failure

    return Flow(_nothing, name="hooks", on_crashed=[tell_failure])


def _nothing() -> None:
    """Do nothing."""


def frequent_polls() -> AbstractContextManager[Settings]:
    """Let a worker look for runs every `POLL_SECONDS`, unless the user has set another time."""
    return temporary_settings(set_defaults={PREFECT_WORKER_QUERY_SECONDS: POLL_SECONDS})


def main() -> None:
    """Poll the pool until SIGINT or SIGTERM. A server that is away is waited for."""
    wait_for_prefect()
    setattr(process, "load_flow_from_flow_run", _hooks_of_worker)  # noqa: B010  # not a public name
    setup_signal_handlers_worker(os.getpid(), "the worker", print)
    collect_garbage_often()
    slots = len(slots_of(os.environ.get(DEVICES)))
    worker = QueueWorker(name="local", work_pool_name=POOL, slots=slots, home=state_folder(None))
    try:
        with frequent_polls():
            asyncio.run(worker.start(with_healthcheck="--with-healthcheck" in sys.argv))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print(f"Worker {worker.name!r} stopped!")


if __name__ == "__main__":
    main()
