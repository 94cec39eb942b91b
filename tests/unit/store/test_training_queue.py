"""The queue of the devices, with real processes where processes matter, on SQLite and on PostgreSQL."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import update

from sdlora.core.errors import TrainingError
from sdlora.processes.identity import ProcessIdentity
from sdlora.processes.slots import slots_of
from sdlora.store import training_queue
from sdlora.store.image_store import ImageStore
from sdlora.store.location import StoreLocation
from sdlora.store.tables import base
from sdlora.store.tables.tickets import TicketTable
from sdlora.store.tickets import (
    Request,
    Ticket,
    active_tickets,
    cancelled_ticket,
    ended_tickets,
    last_runs,
    record_skipped,
    tickets_of_run,
)
from sdlora.store.training_queue import (
    AlreadyQueuedError,
    Place,
    SlotLostError,
    TicketCancelledError,
    TrainingQueue,
    ordinal,
)
from tests.stores import SERVERS, both_places
from tests.waiting import PATIENCE_SECONDS, wait_until


def run_of(style: str, asked_by: str = "person", digest: str | None = None, **more: Any) -> Request:
    return Request(style, asked_by=asked_by, run_digest=digest, **more)  # type: ignore[arg-type]


def states(store: ImageStore) -> dict[str, str]:
    with store.read() as session:
        ended = {t.request.style: t.state for t in reversed(ended_tickets(session, 99))}
        return ended | {t.request.style: t.state for t in active_tickets(session)}


def change(store: ImageStore, ticket: Ticket, **values: Any) -> None:
    with store.write() as session:
        session.execute(update(TicketTable).where(TicketTable.id == ticket.id).values(values))


def put_elsewhere(store: ImageStore, ticket: Ticket, host: str = "elsewhere") -> Ticket:
    change(store, ticket, machine=f"{host} boot pid:[1]")
    return replace(ticket, holder=replace(ticket.holder, machine=f"{host} boot pid:[1]"))


@pytest.fixture
def queue(store: ImageStore) -> TrainingQueue:
    return TrainingQueue(store.database)


def _hold(location: StoreLocation, home: Path, request: Request, pipe: Connection) -> None:
    """Ask and wait as a run does; then train until the parent says how the run ends."""
    with ImageStore.open(home, location) as store:
        queue = TrainingQueue(store.database, slots_of(os.environ.get("SDLORA_DEVICES")))
        ticket = queue.ask(request)
        pipe.send("asked")
        try:
            while isinstance(taken := queue.take(ticket), Place):
                time.sleep(0.02)
        except TicketCancelledError as error:
            pipe.send(str(error))
            return
        pipe.send(f"took {taken.device}")
        queue.end(ticket, pipe.recv())
        pipe.send("ended")


class Runs:
    """Real processes, one for each run."""

    def __init__(self, home: Path, location: StoreLocation) -> None:
        self._home, self._location = home, location
        self._processes: list[Any] = []

    def start(self, *requests: Request) -> list[Run]:
        runs = []
        for request in requests:
            here, there = multiprocessing.Pipe()
            process = multiprocessing.get_context("spawn").Process(
                target=_hold, args=(self._location, self._home, request, there)
            )
            process.start()
            self._processes.append(process)
            runs.append(Run(process, here))
        return runs

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


class Run:
    def __init__(self, process: Any, pipe: Connection) -> None:
        self.process, self._pipe = process, pipe

    def hears(self) -> str:
        assert self._pipe.poll(PATIENCE_SECONDS), "the run says nothing"
        return str(self._pipe.recv())

    def waits(self) -> bool:
        return not self._pipe.poll(0.2)

    def ends(self, outcome: str = "done") -> None:
        self._pipe.send(outcome)
        assert self.hears() == "ended"


@pytest.fixture
def runs(store: ImageStore, location: StoreLocation, tmp_path: Path) -> Iterator[Runs]:
    started = Runs(tmp_path / "home", location)
    yield started
    started.end()


@both_places
def test_runs_train_one_by_one_a_persons_before_the_clocks_and_a_killed_one_frees_its_slot_at_once(
    store: ImageStore, runs: Runs
) -> None:
    (first,) = runs.start(run_of("first", "clock"))
    assert [first.hears(), first.hears()] == ["asked", "took auto"]
    (clocks,) = runs.start(run_of("clocks", "clock"))
    assert clocks.hears() == "asked"
    (person,) = runs.start(run_of("person"))
    assert person.hears() == "asked"
    assert clocks.waits()
    assert person.waits()
    assert list(states(store)) == ["first", "person", "clocks"]

    killed_at = time.monotonic()
    first.process.kill()
    assert person.hears() == "took auto"
    assert time.monotonic() - killed_at < training_queue.SILENT_SECONDS  # after which it would be lost anyway
    assert clocks.waits()
    person.ends()
    assert clocks.hears() == "took auto"
    clocks.ends("failed")
    assert states(store) == {"first": "lost", "person": "done", "clocks": "failed"}


def test_two_slots_train_two_styles_at_once_on_their_devices(
    store: ImageStore, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDLORA_DEVICES", "cuda:0, cuda:1")
    started = runs.start(*map(run_of, "abc"))
    for run in started:
        assert run.hears() == "asked"
    with store.read() as session:

        def two_train() -> bool:
            session.rollback()
            return len([t for t in active_tickets(session) if t.state == "running"]) == 2

        wait_until(two_train, "the start of two runs")
        order = [t.request.style for t in active_tickets(session)]
    by_style = dict(zip("abc", started, strict=True))
    heard = [by_style[style].hears() for style in order[:2]]
    assert sorted(heard) == ["took cuda:0", "took cuda:1"]
    last = by_style[order[2]]
    assert last.waits()
    by_style[order[1]].ends()
    assert last.hears() == heard[1]


def test_a_waiting_process_that_is_cancelled_ends_and_the_next_one_moves_up(store: ImageStore, runs: Runs) -> None:
    queue = TrainingQueue(store.database)
    holder = queue.ask(run_of("holder"))
    assert isinstance(queue.take(holder), Ticket)
    (waiting,) = runs.start(run_of("comics"))
    assert waiting.hears() == "asked"
    after = queue.ask(run_of("props"))
    place = queue.take(after)
    assert isinstance(place, Place)
    assert place.text.startswith("2nd in the queue: holder trains since ")
    assert ", comics waits since " in place.text
    queue.cancel(queue.tickets()[1], "ana")
    assert waiting.hears() == "comics: Cancelled by ana. Nothing was trained."
    place = queue.take(after)
    assert isinstance(place, Place)
    assert place.number == 1


@both_places
def test_a_style_is_in_the_queue_once_and_the_second_run_hears_where_the_first_one_is(queue: TrainingQueue) -> None:
    first, second = queue.ask(run_of("props")), queue.ask(run_of("comics", "clock", "5" * 64))
    queue.take(first)
    with pytest.raises(AlreadyQueuedError, match=r"^props already trains since \d\d:\d\d\. .*sdlora cancel props$"):
        queue.ask(run_of("props", "clock"))
    with pytest.raises(TrainingError, match=r"^comics already waits since \d\d:\d\d, 1st in the queue\."):
        queue.ask(run_of("comics", "trigger"))
    with pytest.raises(AlreadyQueuedError, match="comics already waits"):
        queue.ask(run_of("comics", what="adopt"))  # it publishes versions of the same style
    assert queue.ask(run_of("comics", "clock", what="compare")).title == "comics (compare)"
    assert [t.id for t in queue.tickets()][:2] == [first.id, second.id]


def test_a_person_who_asks_for_the_run_that_the_clock_has_queued_moves_it_forward(queue: TrainingQueue) -> None:
    for name in ("ink", "comics", "props"):
        queue.ask(run_of(name, "clock", name))
    with pytest.raises(AlreadyQueuedError, match="2nd in the queue"):
        queue.ask(run_of("comics", "person", "other images"))
    with pytest.raises(AlreadyQueuedError, match="1st in the queue"):
        queue.ask(run_of("comics", "person", "comics"))
    assert [t.request.style for t in queue.tickets()] == ["comics", "ink", "props"]


@both_places
def test_a_running_ticket_hears_at_its_next_heartbeat_that_a_person_cancels_it(
    store: ImageStore, queue: TrainingQueue
) -> None:
    taken = queue.take(queue.ask(run_of("comics", "clock", "5" * 64)))
    assert isinstance(taken, Ticket)
    assert queue.beat(taken).cancelled_by is None
    assert queue.cancel(taken, "ana").state == "running"
    assert queue.beat(taken).cancelled_by == "ana"
    queue.end(taken, "cancelled", "Cancelled by ana.")
    assert queue.cancel(taken, "bob").cancelled_by == "ana"
    assert states(store) == {"comics": "cancelled"}


def test_who_has_lost_a_slot_is_told_and_cannot_end_or_extend_what_is_not_its_own(
    store: ImageStore, queue: TrainingQueue
) -> None:
    taken = queue.take(queue.ask(run_of("comics")))
    assert isinstance(taken, Ticket)
    thief = replace(taken, token="0" * 32)
    with pytest.raises(SlotLostError, match="The slot of comics was given away"):
        queue.beat(thief)
    queue.end(thief, "failed", "stolen")
    assert states(store) == {"comics": "running"}
    queue.end(taken, "lost", "It was silent.")
    with pytest.raises(SlotLostError, match="It was silent"):
        queue.beat(taken)
    queue.end(taken, "done")  # a process that revives
    assert states(store) == {"comics": "lost"}


@both_places
def test_a_silent_holder_of_another_machine_loses_its_slot_after_the_time_and_one_that_beats_does_not(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]  # of the process that looks; signs of life are written by the database's
    monkeypatch.setattr(training_queue, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    queue = TrainingQueue(store.database, silent_seconds=30)
    there = queue.take(queue.ask(run_of("there")))
    assert isinstance(there, Ticket)
    # It is in the way of no run here: a slot belongs to a machine. A second run of its style has to wait for it.
    put_elsewhere(store, there)
    long_ago = there.asked_at.replace(year=2020)
    beats = 0

    def beating(_seconds: float) -> None:
        nonlocal beats
        beats += 1
        clock[0] += 5.0
        if beats < 20:
            change(store, there, heartbeats=there.heartbeats + beats, heartbeat_at=long_ago)  # its clock is wrong
        else:
            queue.beat(there)

    change(store, there, heartbeat_at=long_ago)
    with pytest.raises(AlreadyQueuedError):
        TrainingQueue(store.database, silent_seconds=30).ask(run_of("there"), sleep=beating)
    assert beats == 20  # three times the limit
    change(store, there, heartbeat_at=long_ago)
    began = clock[0]

    def silent(_seconds: float) -> None:
        clock[0] += 5.0

    queue.ask(run_of("there"), sleep=silent)
    assert clock[0] - began >= 30
    with store.read() as session:
        assert [(t.state, t.reason) for t in ended_tickets(session, 9)] == [
            ("lost", "Its machine gave no sign of life.")
        ]


def test_a_time_in_which_nobody_looked_makes_no_holder_silent(store: ImageStore, monkeypatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(training_queue, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    queue = TrainingQueue(store.database)
    put_elsewhere(store, queue.ask(run_of("there")))
    queue.take(queue.ask(run_of("holder")))
    mine = queue.ask(run_of("mine"))
    queue.take(mine)
    for _outage in range(20):
        clock[0] += 3600.0
        queue.take(mine)
    assert states(store)["there"] == "waiting"
    for _look in range(20):
        clock[0] += 5.0
        queue.take(mine)
    assert states(store)["there"] == "lost"


def test_a_waiting_ticket_that_was_taken_for_lost_returns_to_its_place(store: ImageStore, queue: TrainingQueue) -> None:
    first, second = queue.ask(run_of("first")), queue.ask(run_of("second"))
    change(store, first, state="lost")
    change(store, second, state="lost")
    queue.take(second)
    taken = queue.take(first)
    assert isinstance(taken, Place)
    assert taken.number == 1
    change(store, second, state="lost")
    queue.ask(run_of("second"))
    with pytest.raises(AlreadyQueuedError):
        queue.take(second)


def test_machines_have_slots_and_queues_of_their_own(store: ImageStore, queue: TrainingQueue) -> None:
    there, waiting_there = (put_elsewhere(store, queue.ask(run_of(name))) for name in ("a", "b"))
    change(store, there, state="running", device="auto", taken_at=there.asked_at)
    mine = queue.ask(run_of("c", "clock"))
    assert isinstance(queue.take(mine), Ticket)
    place = queue.take(waiting_there)
    assert isinstance(place, Place)
    assert [t.request.style for t in place.training] == ["a"]


@both_places
def test_the_outcome_of_each_run_stays_and_tells_what_the_clock_must_leave_alone(
    store: ImageStore, queue: TrainingQueue
) -> None:
    def outcome(style: str, digest: str, state: str, reason: str | None = None) -> None:
        queue.end(queue.ask(run_of(style, digest=digest)), state, reason)  # type: ignore[arg-type]

    outcome("comics", "d1", "failed", "no disk")
    outcome("comics", "d1", "cancelled", "Cancelled by ana.")
    outcome("comics", "d2", "done")
    outcome("props", "d1", "done")
    with store.write() as session:
        record_skipped(session, run_of("comics", "clock", "d1", flow_run_id="f" * 36), "Nothing new.")
    queue.ask(run_of("ink"))
    with store.read() as session:
        cancelled = cancelled_ticket(session, "comics", "d1")
        assert cancelled is not None
        assert cancelled.reason == "Cancelled by ana."
        assert [t.reason for t in tickets_of_run(session, "comics", "d1")] == ["Cancelled by ana.", "no disk"]
        assert cancelled_ticket(session, "props", "d1") is cancelled_ticket(session, "comics", "d9") is None
        last = last_runs(session, ["comics", "props", "ink"])
        assert {style: (t.state, t.reason) for style, t in last.items()} == {
            "comics": ("skipped", "Nothing new."),
            "props": ("done", None),
        }
        assert last["comics"].request.flow_run_id == "f" * 36
        assert last["comics"].ended_at is not None
        assert [t.request.style for t in ended_tickets(session, 2)] == ["comics", "props"]
    long = queue.ask(run_of("notes"))
    with store.write() as session:
        record_skipped(session, run_of("notes", "clock", "d1"), "It trains.")
    queue.end(long, "failed", "no disk")
    with store.read() as session:
        assert last_runs(session, ["notes"])["notes"].reason == "no disk"  # the last end, not the last start
    outcome("comics", "d1", "failed")  # a person has started it again
    with store.read() as session:
        assert cancelled_ticket(session, "comics", "d1") is None


def test_a_dead_ticket_is_cancelled_at_once_and_of_another_machine_only_if_it_was_long_silent(
    store: ImageStore, queue: TrainingQueue
) -> None:
    taken = queue.take(queue.ask(run_of("dead")))
    assert isinstance(taken, Ticket)
    change(store, taken, process_start="1")
    assert queue.tickets() == []
    assert queue.cancel(replace(taken, holder=replace(taken.holder, start="1")), "ana").state == "cancelled"
    there = queue.take(queue.ask(run_of("there")))
    assert isinstance(there, Ticket)
    put_elsewhere(store, there)
    assert queue.cancel(there, "ana").state == "running"
    change(store, there, heartbeat_at=there.asked_at.replace(year=2020))
    assert queue.cancel(there, "ana").state == "cancelled"


@pytest.mark.parametrize("location", [SERVERS], indirect=True)
@pytest.mark.parametrize("hours", [-1, 1])
def test_the_clocks_of_two_machines_may_differ(store: ImageStore, queue: TrainingQueue, monkeypatch, hours) -> None:
    with monkeypatch.context() as there:
        there.setattr(base, "datetime", shifted_clock(timedelta(hours=hours)))
        asked = queue.ask(run_of("there"))
        taken = TrainingQueue(store.database).take(asked)  # another process, which has given no sign of life so far
        assert isinstance(taken, Ticket)
        queue.beat(taken)
    put_elsewhere(store, taken)
    with pytest.raises(AlreadyQueuedError):  # at once, without a look at the holder for two minutes
        queue.ask(run_of("there"), sleep=lambda _: pytest.fail("the holder is alive"))
    assert queue.cancel(taken, "ana").state == "running"  # its holder saves and stops
    time.sleep(0.2)
    impatient = TrainingQueue(store.database, silent_seconds=0.1)
    assert impatient.cancel(taken, "ana").state == "cancelled"  # silent by the database's clock


def shifted_clock(difference: timedelta) -> type[datetime]:
    class Shifted(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + difference

    return Shifted


def test_a_device_listed_twice_is_two_slots(store: ImageStore) -> None:
    queue = TrainingQueue(store.database, ("cpu", "cpu"))
    taken: list[Callable[[], Any]] = [queue.take(queue.ask(run_of(name))) for name in "abc"]  # type: ignore[misc]
    assert [getattr(ticket, "device", None) for ticket in taken] == ["cpu", "cpu", None]


def test_places_are_counted_in_english() -> None:
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 101, 111)] == (
        "1st 2nd 3rd 4th 11th 12th 13th 21st 101st 111th".split()
    )


def test_the_holder_of_a_ticket_is_this_process(queue: TrainingQueue) -> None:
    assert queue.ask(run_of("comics")).holder == ProcessIdentity.of_this_process()
