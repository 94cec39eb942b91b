"""Flow runs that outlive their worker: a new one counts them, and the end of `sdlora up` ends them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID, uuid4

import psutil
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.states import Cancelling, Running

from deployments.environment import POOL, PREFECT_FILE, PROJECT
from deployments.register import ensure_process_pool, load_deployments
from deployments.servers import earlier_runs
from deployments.servers.earlier_runs import SCRIPT, EarlierRuns, flow_processes
from deployments.servers.services import stop_others
from deployments.servers.worker import WAITING, QueueWorker
from sdlora.store.starts import KEY_PREFIX

HEEDS = "import time; print('ready', flush=True); time.sleep(3600)"
IGNORES = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {HEEDS}"


class Runs:
    """Processes that look like flow runs of a worker."""

    def __init__(self, home: Path) -> None:
        self.home, self.processes = home, []

    def begin(self, run_id: UUID, home: Path | None = None, code: str = HEEDS) -> subprocess.Popen[bytes]:
        """Start a process; returns when others see its command line and its variables."""
        variables = {"SDLORA_HOME": str(home or self.home), "PREFECT__FLOW_RUN_ID": str(run_id)}
        command = [sys.executable, "-c", code, str(PROJECT / SCRIPT)]
        environment = {**os.environ, **variables}
        process = subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.PIPE)
        self.processes.append(process)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        return process


@pytest.fixture
def runs(tmp_path: Path):
    made = Runs(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.communicate()


def test_processes_of_flow_runs_are_found_by_the_state_folder_until_they_end(runs, tmp_path):
    mine, others = uuid4(), uuid4()
    process = runs.begin(mine)
    runs.begin(others, tmp_path / "other")
    assert {run: found.pid for run, found in flow_processes(tmp_path).items()} == {mine: process.pid}
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and not reaped
    assert flow_processes(tmp_path) == {}


def test_they_are_ended_with_sdlora_up(runs, tmp_path):
    process = runs.begin(uuid4())
    stop_others(flow_processes(tmp_path).values())
    assert not psutil.pid_exists(process.pid)


async def due(worker: QueueWorker, deployment_id: UUID, count: int) -> list[UUID]:
    """Let new data start runs."""
    created = [
        await worker.client.create_flow_run_from_deployment(deployment_id, idempotency_key=f"{KEY_PREFIX}{uuid4()}")
        for _ in range(count)
    ]
    return [run.id for run in created]


async def chosen(worker: QueueWorker, ids: list[UUID]) -> set[UUID]:
    scheduled = await worker.client.get_scheduled_flow_runs_for_work_pool(POOL)
    of_test = [one for one in scheduled if one.flow_run.id in ids]  # other tests leave runs in the pool
    assert len(of_test) == len(ids)
    return {one.flow_run.id for one in await worker.admitted(of_test)}


def test_a_new_worker_counts_the_runs_of_an_earlier_one_until_they_end(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("SDLORA_HOME", str(tmp_path))
    monkeypatch.setenv("SDLORA_PROJECT", str(PROJECT))
    ensure_process_pool(POOL)
    (template,) = (one for one in load_deployments(PREFECT_FILE, PROJECT, {}) if one.name == "retrain/retrain")
    template.register()
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("retrain/retrain").id
        earlier = [
            client.create_flow_run_from_deployment(deployment, idempotency_key=f"{KEY_PREFIX}{uuid4()}").id
            for _ in range(1 + WAITING)
        ]
        for run in earlier:
            client.set_flow_run_state(run, Running(), force=True)
    processes = [runs.begin(run) for run in earlier]
    created = list(earlier)

    async def scenario() -> tuple[set[UUID], set[UUID], list[UUID]]:
        async with QueueWorker(name="new", work_pool_name=POOL, slots=1, home=tmp_path) as worker:
            later = await due(worker, deployment, 2)
            created.extend(later)
            full = await chosen(worker, later)
            processes[0].kill()
            processes[0].wait()
            return full, await chosen(worker, later), later

    try:
        full, room, later = asyncio.run(scenario())
    finally:
        with get_client(sync_client=True) as client:
            for run in created:
                client.delete_flow_run(run)
    assert full == set()
    assert len(room) == 1 and room <= set(later)


@pytest.mark.parametrize("code", [HEEDS, IGNORES], ids=["heeds SIGTERM", "ignores SIGTERM"])
def test_a_run_of_an_earlier_worker_that_a_person_cancels_ends_as_cancelled(runs, tmp_path, monkeypatch, code):
    monkeypatch.setattr(earlier_runs, "GRACE_SECONDS", 0.5)

    @flow(name="retrain")
    def retrain() -> None: ...

    async def scenario() -> list[int]:
        async with get_client() as client:
            run = await client.create_flow_run(retrain)
            await client.set_flow_run_state(run.id, Running(), force=True)
            process = runs.begin(run.id, code=code)
            earlier, counts = EarlierRuns(tmp_path), []
            counts.append(len(await earlier.going_on(client)))
            assert process.poll() is None
            await client.set_flow_run_state(run.id, Cancelling())
            while counts[-1]:
                counts.append(len(await earlier.going_on(client)))
                await asyncio.sleep(0.1)
                assert len(counts) < 600
            state = (await client.read_flow_run(run.id)).state
            assert state is not None and state.type == StateType.CANCELLED
            return counts

    assert asyncio.run(scenario())[-2:] == [1, 0]
