"""Three styles under a real `sdlora up` with one slot: the clock starts two, a person the third, outside its hours."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml

from deployments.servers.earlier_runs import flow_processes
from deployments.styles.files import style_file
from sdlora.store.image_store import ImageStore
from sdlora.store.tickets import Request, Ticket, ended_tickets, last_runs
from sdlora.store.training_queue import TrainingQueue
from tests.flow_runs import clock_starts, end_all_runs, runs_of_the_clock, until
from tests.settings import make_style
from tests.stack import DEVICE, RunningStack, start_stack
from tests.tiny import draw_images

CLOCKS, PERSONS = ("comics", "ink"), "props"
STYLES = (*CLOCKS, PERSONS)
STARTED = ("PENDING", "RUNNING", "COMPLETED")


@pytest.fixture
def styles(running_stack: RunningStack, settings: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Styles that are added while `sdlora up` runs: two due each minute, and the hours of one of these are over."""
    now = datetime.now(UTC)
    over = f"{now + timedelta(hours=2):%H:%M}-{now + timedelta(hours=3):%H:%M}"
    schedules = {"comics": {"cron": "* * * * *", "tags": ["art"]}, PERSONS: {"cron": "* * * * *", "window": over}}
    sections = {name: value for name, value in settings.items() if name not in ("name", "data")}
    for number, name in enumerate(STYLES):
        images = draw_images(running_stack.config.parent / name, 12, seed=20 + number)
        data = {"held_out_fraction": 0.4}
        make_style(running_stack.home, name, images, **sections, data=data, schedule=schedules.get(name, {}))
    yield STYLES
    for name in STYLES:
        style_file(running_stack.home, name).unlink()
        running_stack.wait_for(f"Style {name} has no file any more")
    end_all_runs(running_stack)


def without_cron(stack: RunningStack, style: str) -> None:
    """Take the times of the clock out of a style's file, as a person does with an editor."""
    file = style_file(stack.home, style)
    written = yaml.safe_load(file.read_text())
    del written["schedule"]["cron"]
    file.write_text(yaml.safe_dump(written))
    stack.wait_for(f"Style {style} is changed.")


def take_slot(queue: TrainingQueue) -> Ticket:
    """Take the only slot."""
    holder = queue.take(queue.ask(Request("another")))
    assert isinstance(holder, Ticket)
    return holder


def waiting_tickets(queue: TrainingQueue, *asked_by: str) -> list[Ticket]:
    """Wait until those who ask for a slot are these, in this order."""

    def found() -> list[Ticket]:
        tickets = [ticket for ticket in queue.tickets() if ticket.state == "waiting"]
        return tickets if [ticket.request.asked_by for ticket in tickets] == list(asked_by) else []

    tickets: list[Ticket] = until(found)
    return tickets


def test_clock_and_persons_share_a_slot_few_processes_wait_and_a_cancelled_run_stays_cancelled(
    running_stack: RunningStack, styles: tuple[str, ...]
) -> None:
    stack = running_stack
    end_all_runs(stack)  # of a test before that failed
    with ImageStore.open(stack.home) as store:
        queue = TrainingQueue(store.database, (DEVICE,))
        holder = take_slot(queue)  # until all have come
        try:
            for style in styles:
                stack.wait_for(f"Style {style} is taken up.")
            of_clock = {style: stack.deployment(style) for style in styles}
            schedules = {name: stack.api(f"deployments/name/retrain/{name}")["schedules"] for name in (*styles, "mine")}
            assert {name: len(found) for name, found in schedules.items()} == {
                "comics": 1,
                "ink": 0,
                "props": 1,
                "mine": 0,
            }
            runs = {"ink": clock_starts(stack, "ink")}
            skipped = until(lambda: runs_of_the_clock(stack, of_clock[PERSONS], STARTED))[0]
            runs["comics"] = until(lambda: runs_of_the_clock(stack, of_clock["comics"], STARTED))[0]
            for style in ("comics", PERSONS):  # once is enough
                without_cron(stack, style)
            assert "art" in stack.api(f"flow_runs/{runs['comics']}")["tags"]

            state = stack.completed(skipped)
            assert state["name"] == "Completed"  # the page of a deployment hides states of other names
            assert stack.api(f"flow_runs/{skipped}")["name"].endswith(", skipped")
            assert state["message"].startswith("skipped, because it is ") and "schedule.window" in state["message"]
            with store.read() as session:
                assert last_runs(session, [PERSONS])[PERSONS].state == "skipped"
            assert not (stack.home / "runs" / PERSONS).exists()

            waiting_tickets(queue, "clock", "clock")
            runs[PERSONS] = stack.start_run(of_clock[PERSONS])  # a person is not bound by the hours
            persons, first, last = waiting_tickets(queue, "person", "clock", "clock")
            assert persons.request.style == PERSONS
            assert first.id < last.id
            until(lambda: flow_processes(stack.home).keys() == set(map(UUID, runs.values())))

            state = until(lambda: shown_as_third(stack, runs[last.request.style]))
            assert state["message"].startswith("3rd in the queue: another trains since ")
            cancel = {"state": {"type": "CANCELLING"}}  # the page's Cancel
            stack.api(f"flow_runs/{runs[last.request.style]}/set_state", cancel)
            assert stack.finished(runs[last.request.style])["type"] == "CANCELLED"
        finally:
            queue.end(holder, "done")

        for ticket in (persons, first):
            assert stack.completed(runs[ticket.request.style])["name"] == "Completed"
        until(lambda: not flow_processes(stack.home))
        with store.read() as session:
            ended = {t.id: t for t in ended_tickets(session, 99)}
        assert [(ended[t.id].state, ended[t.id].reason) for t in (persons, first, last)] == [
            ("done", None),
            ("done", None),
            ("cancelled", "Cancelled in Prefect's page."),
        ]
        taken, over = ended[first.id].taken_at, ended[persons.id].ended_at
        assert taken is not None
        assert over is not None
        assert over < taken
        assert {ended[t.id].device for t in (persons, first)} == {DEVICE}

        again = clock_starts(stack, last.request.style)
        assert "a person cancelled this run" in stack.completed(again)["message"]
        with store.read() as session:
            assert last_runs(session, [last.request.style])[last.request.style].state == "skipped"
        holder = take_slot(queue)
        try:
            run = stack.start_run(of_clock[last.request.style])
            (persons,) = waiting_tickets(queue, "person")  # whom the cancel does not bind
            queue.cancel(persons, "ana")  # as `sdlora cancel` does
            assert stack.finished(run)["type"] == "CANCELLED"
        finally:
            queue.end(holder, "done")
        with store.read() as session:
            assert last_runs(session, [last.request.style])[last.request.style].reason == "Cancelled by ana."

        images = {style: {row.sha256 for row in store.dataset(style).images()} for style in styles}
    assert [len(images[style]) for style in styles] == [12, 12, 12]
    assert len(set.union(*images.values())) == 36
    reports = {style: len(list(stack.home.glob(f"runs/{style}/*/release/report.html"))) for style in styles}
    assert reports == {PERSONS: 1, first.request.style: 1, last.request.style: 0}


def shown_as_third(stack: RunningStack, run_id: str) -> dict[str, Any] | None:
    state: dict[str, Any] = stack.api(f"flow_runs/{run_id}")["state"]
    return state if state["name"] == "Waiting" and state["message"].startswith("3rd") else None


@pytest.fixture
def own_stack(settings: dict[str, Any], tmp_path: Path) -> Iterator[RunningStack]:
    """`sdlora up` with a style that is there at the start, for a test that ends it."""
    sections = {name: value for name, value in settings.items() if name not in ("name", "data")}
    images = draw_images(tmp_path / "ink", 12, seed=21)
    make_style(tmp_path / "home", "ink", images, **sections, data={"held_out_fraction": 0.4})
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump({**settings, "name": "mine"}))
    stack = start_stack(tmp_path / "home", config, {"SDLORA_DEVICES": DEVICE})
    try:
        stack.wait_for("Stop everything")
        yield stack
    finally:
        stack.stop()


def test_the_end_of_sdlora_up_cancels_nothing(own_stack: RunningStack) -> None:
    assert "styles: ink, mine" in own_stack.said
    with ImageStore.open(own_stack.home) as store:
        queue = TrainingQueue(store.database, (DEVICE,))
        holder = take_slot(queue)
        own_stack.start_run(own_stack.deployment("ink"))
        waiting_tickets(queue, "person")
        own_stack.stop()
        until(lambda: [ticket.id for ticket in queue.tickets()] == [holder.id])
        other = queue.ask(Request("ink"))  # the place is free
        with store.read() as session:
            stopped = last_runs(session, ["ink"])["ink"]
        assert stopped.state == "lost"
        queue.end(other, "done")
        queue.end(holder, "done")
