"""A person's Cancel in Prefect's page of a run whose process is killed before it can write the end of its ticket."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Cancelling, Crashed, Running

from sdlora.config import PipelineConfig
from sdlora.core.refs import BaseModelRef, SnapshotRef
from sdlora.store.image_store import ImageStore
from sdlora.store.tickets import Request, ended_tickets
from sdlora.store.training_queue import TrainingQueue
from tasks.results import RunRef
from tasks.waiting import outcomes
from tasks.waiting.page_cancels import IN_PAGE, record_page_cancels
from tasks.waiting.unattended import leave_alone
from tests.waiting import PATIENCE_SECONDS

BASE = BaseModelRef(name="b", folder=Path("b"), digest="b" * 64)
SNAPSHOT = SnapshotRef(digest="s" * 64, dataset="x", training_digest="t" * 64, train_count=9, held_out_count=3)
CONFIG = PipelineConfig(name="comics")


@flow
def retrain() -> None:
    """A flow whose runs the server knows."""


def flow_run(*states: State) -> str:
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(retrain)
        for state in states:
            client.set_flow_run_state(run.id, state, force=True)
    return str(run.id)


def _train(home: Path, flow_run_id: str, is_training) -> None:
    with ImageStore.open(home) as store:
        queue = TrainingQueue(store.database)
        queue.take(queue.ask(Request("comics", asked_by="clock", run_digest="d1", flow_run_id=flow_run_id)))
        is_training.set()
        signal.pause()


def killed_run(home: Path, flow_run_id: str) -> None:
    """Kill a process that holds a slot."""
    ImageStore.open(home).close()
    spawn = multiprocessing.get_context("spawn")
    is_training = spawn.Event()
    process = spawn.Process(target=_train, args=(home, flow_run_id, is_training))
    process.start()
    assert is_training.wait(PATIENCE_SECONDS)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def reason(home: Path) -> str | None:
    return leave_alone.fn(CONFIG, BASE, SNAPSHOT, RunRef(digest="d1", folder=home / "d1"), False, home)


def ended(home: Path) -> list[tuple[str, str | None]]:
    with ImageStore.open(home) as store, store.read() as session:
        return [(ticket.state, ticket.reason) for ticket in ended_tickets(session, 9)]


@pytest.fixture(autouse=True)
def _of_clock(monkeypatch) -> None:
    monkeypatch.setattr(outcomes, "asked_by", lambda: "clock")


@pytest.mark.parametrize("end", [Cancelled(), Crashed(message="Its process was killed.")])
def test_the_clock_leaves_a_run_alone_that_was_cancelled_and_killed(tmp_path, end):
    killed_run(tmp_path, flow_run(Running(), Cancelling(), end))
    assert IN_PAGE in (reason(tmp_path) or "")
    assert ("cancelled", IN_PAGE) in ended(tmp_path)


def test_a_cancel_that_was_found_as_lost_first_is_corrected_for_people_too(tmp_path):
    killed_run(tmp_path, flow_run(Running(), Cancelling(), Cancelled()))
    with ImageStore.open(tmp_path) as store:
        queue = TrainingQueue(store.database)
        queue.end(queue.ask(Request("comics", run_digest="d2")), "done")  # ends the lost one
    assert [state for state, _ in ended(tmp_path)] == ["done", "lost"]
    record_page_cancels(tmp_path)
    assert [state for state, _ in ended(tmp_path)] == ["done", "cancelled"]


def test_a_look_at_a_new_state_folder_writes_nothing(tmp_path):
    record_page_cancels(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "states",
    [
        (Running(), Crashed(message="a power cut")),
        (Running(), Cancelling(), Cancelled(), Running(), Crashed(message="a person retried it, then a power cut")),
    ],
)
def test_a_killed_run_that_nobody_cancelled_is_continued(tmp_path, states):
    killed_run(tmp_path, flow_run(*states))
    assert reason(tmp_path) is None


def test_a_run_of_another_server_is_continued(tmp_path):
    killed_run(tmp_path, str(uuid4()))
    assert reason(tmp_path) is None
