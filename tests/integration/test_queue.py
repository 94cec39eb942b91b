"""Tickets of real flow runs: how a run waits, and what its ticket says about its end."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from sqlalchemy import update

from sdlora.config import PipelineConfig
from sdlora.core.errors import DataError, StorageError
from sdlora.core.schedule import ScheduleConfig
from sdlora.store.image_store import ImageStore
from sdlora.store.tables.tickets import TicketTable
from sdlora.store.tickets import Request, Ticket, ended_tickets
from sdlora.store.training_queue import SlotLostError, TicketCancelledError, TrainingQueue
from tasks.progress import listening
from tasks.waiting import heartbeat, outcomes, queue
from tasks.waiting.outcomes import ending_recorded
from tasks.waiting.queue import join_queue, training_slot
from tasks.waiting.skipping import OutsideHoursError
from tests.listeners import Notes
from tests.waiting import PATIENCE_SECONDS

TRAINS = threading.Event()
"""Set by the flow when it has its slot."""


@flow
def train(
    home: Path, seconds: float = 0.0, error: Exception | None = None, schedule: ScheduleConfig | None = None
) -> str:
    config = PipelineConfig(name="comics")
    with ending_recorded(config, home), training_slot(join_queue("comics", "retrain", home), home, schedule):
        TRAINS.set()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(0.05)
        if error:
            raise error
        return flow_run.id


@pytest.fixture
def store(tmp_path):
    with ImageStore.open(tmp_path) as opened:
        yield opened


@pytest.fixture
def holder(store) -> Ticket:
    """Another run, which holds the only slot."""
    taken = TrainingQueue(store.database).take(TrainingQueue(store.database).ask(Request("props")))
    assert isinstance(taken, Ticket)
    return taken


def last(store: ImageStore) -> tuple[str, str | None]:
    with store.read() as session:
        ticket = ended_tickets(session, 1)[0]
    return ticket.state, ticket.reason


def shows_its_place(store: ImageStore) -> bool:
    """Look whether the run waits and has told the server so."""
    for ticket in TrainingQueue(store.database).tickets():
        if (ticket.request.style, ticket.state) == ("comics", "waiting") and ticket.request.flow_run_id:
            with get_client(sync_client=True) as client:
                state = client.read_flow_run(UUID(ticket.request.flow_run_id)).state
            return state is not None and state.name == "Waiting"
    return False


@pytest.fixture
def once(store: ImageStore) -> Iterator[Callable[[str, Callable[[], object]], None]]:
    """Function that acts in another thread as soon as the run waits, or trains."""
    TRAINS.clear()
    over, threads = threading.Event(), []

    def begin(state: str, act: Callable[[], object]) -> None:
        def wait() -> None:
            while not over.is_set():
                with contextlib.suppress(StorageError, httpx.HTTPError):  # a busy server is asked again
                    if shows_its_place(store) if state == "waiting" else TRAINS.is_set():
                        act()
                        return
                time.sleep(0.02)

        threads.append(threading.Thread(target=wait, daemon=True))
        threads[0].start()

    yield begin
    over.set()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)


def test_a_run_waits_shows_its_place_and_takes_the_slot_when_it_is_free(store, once, holder, tmp_path):
    notes = Notes()
    once("waiting", lambda: TrainingQueue(store.database).end(holder, "done"))
    with listening(notes):
        run_id = train(tmp_path)
    assert len(notes.lines) == 1
    assert notes.lines[0].startswith("Waiting, 1st in the queue: props trains since ")
    with get_client(sync_client=True) as client:
        states = client.read_flow_run_states(run_id)
    assert [state.name for state in states] == ["Pending", "Running", "Waiting", "Running", "Completed"]
    assert states[2].message == notes.lines[0].removeprefix("Waiting, ")
    assert last(store) == ("done", None)


@pytest.fixture
def closing(monkeypatch) -> ScheduleConfig:
    """Hours of a schedule that ended while a run of the clock waited."""
    monkeypatch.setattr(outcomes, "asked_by", lambda: "clock")
    hour = datetime.now(UTC).hour
    return ScheduleConfig(window=f"{(hour + 12) % 24:02}:00-{(hour + 13) % 24:02}:00")


def test_a_clocks_run_whose_turn_comes_outside_its_hours_trains_nothing(store, once, holder, closing, tmp_path):
    once("waiting", lambda: TrainingQueue(store.database).end(holder, "done"))
    with pytest.raises(OutsideHoursError, match=r"schedule\.window"):
        train(tmp_path, schedule=closing)
    state, reason = last(store)
    assert state == "skipped"
    assert "schedule.window" in (reason or "")


def test_a_run_that_a_person_moved_forward_is_not_bound_by_the_hours(store, once, holder, closing, tmp_path):
    def move_forward() -> None:
        with store.write() as session:
            session.execute(update(TicketTable).where(TicketTable.state == "waiting").values(asked_by="person"))
        TrainingQueue(store.database).end(holder, "done")

    once("waiting", move_forward)
    train(tmp_path, schedule=closing)
    assert last(store) == ("done", None)


def test_a_waiting_run_that_is_cancelled_ends_without_training(store, once, holder, tmp_path):
    once(
        "waiting",
        lambda: TrainingQueue(store.database).cancel(TrainingQueue(store.database).tickets()[1], "ana"),
    )
    with pytest.raises(TicketCancelledError, match="comics: Cancelled by ana"):
        train(tmp_path)
    assert last(store) == ("cancelled", "Cancelled by ana.")


def test_a_training_run_that_is_cancelled_gets_the_signal_of_ctrl_c(store, once, tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(queue, "Heartbeat", lambda *of: heartbeat.Heartbeat(*of, interval_seconds=0.1))
    once(
        "running",
        lambda: TrainingQueue(store.database).cancel(TrainingQueue(store.database).tickets()[0], "ana"),
    )
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, seconds=PATIENCE_SECONDS)
    assert last(store) == ("cancelled", "Cancelled by ana.")


def test_a_run_whose_slot_was_given_away_stops_and_says_so(store, once, tmp_path, monkeypatch):
    monkeypatch.setattr(queue, "Heartbeat", lambda *of: heartbeat.Heartbeat(*of, interval_seconds=0.1))

    def steal() -> None:
        stolen = TrainingQueue(store.database).tickets()[0]
        TrainingQueue(store.database).end(stolen, "lost", "Its machine gave no sign of life.")

    once("running", steal)
    with pytest.raises(SlotLostError, match="gave no sign of life"):
        train(tmp_path, seconds=PATIENCE_SECONDS)
    assert last(store) == ("lost", "Its machine gave no sign of life.")


@pytest.mark.parametrize(
    ("number", "error", "ending"),
    [
        (signal.SIGINT, KeyboardInterrupt, ("cancelled", "Cancelled with Ctrl-C.")),
        (signal.SIGTERM, TerminationSignal, ("lost", "The process was stopped.")),  # a machine that shuts down
    ],
)
def test_ctrl_c_cancels_and_the_end_of_the_system_does_not(store, once, tmp_path, number, error, ending):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Prefect sends it on to the handler before
    once("running", lambda: os.kill(os.getpid(), number))
    with pytest.raises(error):
        train(tmp_path, seconds=PATIENCE_SECONDS)
    assert last(store) == ending


def test_a_failure_in_the_slot_and_one_before_it_are_outcomes_of_the_style(store, tmp_path, monkeypatch):
    with pytest.raises(DataError):
        train(tmp_path, error=DataError("no\nimages"))
    assert last(store) == ("failed", "no\\nimages")
    monkeypatch.setenv("SDLORA_DEVICES", "gpu")
    with pytest.raises(Exception, match="SDLORA_DEVICES"):
        train(tmp_path)
    with store.read() as session:
        reasons = [ticket.reason or "" for ticket in ended_tickets(session, 9)]
    assert len(reasons) == 2
    assert reasons[0].startswith("SDLORA_DEVICES: 'gpu' is no device")


def test_a_slot_that_a_full_disk_kept_is_freed_by_the_next_run_of_the_process(store, tmp_path, monkeypatch):
    def refused(*arguments: object) -> None:
        raise StorageError("the disk is full")

    end = TrainingQueue.end
    monkeypatch.setattr(TrainingQueue, "end", refused)
    with pytest.raises(DataError):
        train(tmp_path, error=DataError("no images"))
    assert [ticket.state for ticket in TrainingQueue(store.database).tickets()] == ["running"]  # this process lives
    monkeypatch.setattr(TrainingQueue, "end", end)
    train(tmp_path)
    with store.read() as session:
        assert [(one.state, one.reason) for one in ended_tickets(session, 2)] == [
            ("done", None),
            ("failed", "no images"),
        ]


def test_an_outage_of_the_database_ends_no_waiting_run(store, once, holder, tmp_path, monkeypatch):
    take, calls = TrainingQueue.take, []

    def failing(self, ticket):
        calls.append(ticket)
        if len(calls) in (2, 3):
            raise StorageError("the server is away")
        return take(self, ticket)

    monkeypatch.setattr(TrainingQueue, "take", failing)
    monkeypatch.setattr(queue, "_POLL_SECONDS", 0.05)
    once("waiting", lambda: TrainingQueue(store.database).end(holder, "done"))
    train(tmp_path)
    assert last(store) == ("done", None)
