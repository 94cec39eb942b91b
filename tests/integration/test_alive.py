"""Runs that were killed are told from runs that live."""

from __future__ import annotations

import multiprocessing
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.states import Cancelling, Completed, Pending, Running

from tasks.alive import FOLDER, crash_abandoned, crash_killed, crash_unclaimed, flow_run_alive


@flow
def living(home: Path) -> list[str]:
    with flow_run_alive(home):
        return [path.name for path in (home / FOLDER).iterdir()]


@task
def working() -> None:
    """Never called: its runs are made by hand."""


def _hold(home: Path, name: str, pipe) -> None:
    """Hold the lock of a run, as its process does, until killed."""
    import fcntl

    with (home / FOLDER / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        pipe.send("held")
        signal.pause()


class Runs:
    def __init__(self, home: Path) -> None:
        self.home, self.client, self.made, self.processes = home, get_client(sync_client=True), [], []
        (home / FOLDER).mkdir(parents=True)

    def make(self, state):
        run = self.client.create_flow_run(living, parameters={"home": str(self.home)}, state=state)
        self.made.append(run.id)
        return run

    def make_for_worker(self, state):
        deployment = self.client.create_deployment(self.client.create_flow(living), name="living")
        run = self.client.create_flow_run_from_deployment(deployment, state=state)
        self.made.append(run.id)
        return run

    def make_task(self, run, state):
        return self.client.create_task_run(working, flow_run_id=run.id, dynamic_key=str(uuid4()), state=state)

    def task_state(self, task_run) -> str:
        return self.client.read_task_run(task_run.id).state.type.value

    def hold(self, run):
        here, there = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=_hold, args=(self.home, str(run.id), there))
        process.start()
        self.processes.append(process)
        assert here.recv() == "held"
        return process

    def state(self, run) -> str:
        return self.client.read_flow_run(run.id).state.type.value


@pytest.fixture
def runs(tmp_path):
    crash_unclaimed(tmp_path, older_than_seconds=0)  # what other tests left on their common server
    made = Runs(tmp_path)
    with made.client:
        yield made
        for process in made.processes:
            process.kill()
            process.join()
        for run_id in made.made:
            made.client.delete_flow_run(run_id)


def test_a_killed_run_is_cleared_away_when_the_next_one_starts(runs):
    killed = runs.make(Running())
    process = runs.hold(killed)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    (shown,) = living(runs.home)
    assert runs.state(killed) == "CRASHED"
    assert shown != str(killed.id)
    assert list((runs.home / FOLDER).iterdir()) == []


def test_a_run_that_lives_elsewhere_is_left_alone_by_all(runs):
    run = runs.make(Running())
    runs.hold(run)
    living(runs.home)
    assert crash_killed(runs.home) == []
    assert crash_unclaimed(runs.home, older_than_seconds=0) == []
    assert runs.state(run) == "RUNNING"


@pytest.mark.parametrize(("state", "after"), [(Cancelling(), "CRASHED"), (Completed(), "COMPLETED")])
def test_only_what_the_server_calls_living_is_changed(runs, state, after):
    run = runs.make(state)
    (runs.home / FOLDER / str(run.id)).touch()
    crash_killed(runs.home)
    assert runs.state(run) == after


def test_a_run_of_another_server_or_a_stray_file_is_no_trouble(runs):
    for name in ("7b1d3f5e-0000-4000-8000-000000000000", "notes.txt"):
        (runs.home / FOLDER / name).touch()
    assert crash_killed(runs.home) == []


def test_when_the_servers_start_runs_that_nobody_claims_are_crashed_unless_they_just_began(runs):
    orphan, waiting = runs.make(Running()), runs.make(Pending())
    assert crash_unclaimed(runs.home, older_than_seconds=3600) == []
    assert set(crash_unclaimed(runs.home, older_than_seconds=0)) == {orphan.name, waiting.name}
    assert runs.state(orphan) == runs.state(waiting) == "CRASHED"


def test_a_pending_run_from_before_the_clock_was_set_back_is_crashed_when_the_servers_start(runs, monkeypatch):
    ahead = runs.make(Pending())
    monkeypatch.setattr("tasks.alive.now", lambda zone: datetime.now(UTC) - timedelta(hours=1))
    assert crash_unclaimed(runs.home, older_than_seconds=60) == [ahead.name]
    assert runs.state(ahead) == "CRASHED"


def test_a_run_that_a_killed_worker_took_and_no_process_has_is_crashed_once_another_worker_works(runs):
    before = datetime.now(UTC)
    abandoned, starting, claimed = (runs.make_for_worker(Pending()) for _ in range(3))
    of_terminal = runs.make(Pending())
    runs.hold(claimed)
    assert crash_abandoned(runs.home, before, {starting.id}) == []  # today's worker took them
    assert crash_abandoned(runs.home, datetime.now(UTC), {starting.id}) == [abandoned.name]
    assert runs.state(abandoned) == "CRASHED"
    assert [runs.state(run) for run in (starting, claimed, of_terminal)] == ["PENDING"] * 3


def test_a_run_that_fails_leaves_no_mark(runs):
    @flow
    def failing(home: Path) -> None:
        with flow_run_alive(home):
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        failing(runs.home)
    assert list((runs.home / FOLDER).iterdir()) == []


def test_tasks_of_a_killed_run_are_ended_with_it(runs):
    killed, living_run = runs.make(Running()), runs.make(Running())
    tasks = [runs.make_task(run, Running()) for run in (killed, killed, living_run)]
    runs.hold(living_run)
    (runs.home / FOLDER / str(killed.id)).touch()
    crash_killed(runs.home)
    assert [runs.task_state(task) for task in tasks] == ["CRASHED", "CRASHED", "RUNNING"]


def test_tasks_whose_end_was_lost_are_ended_when_the_servers_start(runs):
    finished = runs.make(Completed())
    lost, reported = runs.make_task(finished, Running()), runs.make_task(finished, Completed())
    crash_unclaimed(runs.home, older_than_seconds=3600)
    assert [runs.task_state(task) for task in (lost, reported)] == ["CRASHED", "COMPLETED"]
    assert runs.state(finished) == "COMPLETED"
