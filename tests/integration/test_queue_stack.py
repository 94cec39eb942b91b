"""Three styles under a real `sdlora up` with one slot: the clock starts two, a person the third."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psutil
import pytest
import yaml

from sdlora.store.image_store import ImageStore
from sdlora.store.tickets import Request, Ticket, ended_tickets, last_runs
from sdlora.store.training_queue import TrainingQueue
from tests.settings import make_style
from tests.stack import RunningStack, start_stack
from tests.tiny import draw_images

CLOCKS, PERSONS = ("comics", "ink"), "props"
STYLES = (*CLOCKS, PERSONS)
PATIENCE_SECONDS = 240


@pytest.fixture(scope="module")
def stack(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    folder = tmp_path_factory.mktemp("queue")
    sections = {name: value for name, value in settings.items() if name not in ("name", "data")}
    for number, name in enumerate(STYLES):
        images = draw_images(folder / name, 12, seed=20 + number)
        make_style(folder / "home", name, images, **sections, data={"held_out_fraction": 0.4})
    config = folder / "mine.yaml"
    config.write_text(yaml.safe_dump({**settings, "name": "mine"}))
    stack = start_stack(folder / "home", config, {"SDLORA_DEVICES": "cpu"})
    try:
        stack.wait_for("Stop everything")
        yield stack
    finally:
        stack.process.terminate()  # the last test has ended it
        stack.process.wait(60)


def take_slot(queue: TrainingQueue) -> Ticket:
    """Take the only slot; one that a test before this one left behind is freed."""
    for left in queue.tickets():
        queue.cancel(left, "the next test")
        queue.end(left, "cancelled")
    holder = queue.take(queue.ask(Request("another")))
    assert isinstance(holder, Ticket)
    return holder


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.2)
    return found


def clock_starts(stack: RunningStack, style: str, seconds: float) -> str:
    """Let the clock start a style once, some seconds from now; return the id of the flow run."""
    deployment = stack.api(f"deployments/name/retrain/{style}")["id"]
    in_a_year = f"{datetime.now(UTC).year + 1}-01-01T00:00:00Z"
    of_the_clock = {
        "deployment_id": {"any_": [deployment]},
        "tags": {"all_": ["auto-scheduled"]},
        "expected_start_time": {"before_": in_a_year},
    }

    def runs() -> set[str]:
        return {run["id"] for run in stack.api("flow_runs/filter", {"flow_runs": of_the_clock})}

    before = runs()
    while True:
        # A server that answers after the anchor's time makes no run: the next one is due ten years later.
        once = {
            "interval": 10 * 365 * 86400,
            "anchor_date": (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(),
        }
        (made,) = stack.api(f"deployments/{deployment}/schedules", [{"schedule": once, "active": True}])
        stack.api(f"deployments/{deployment}/schedule", {"min_runs": 1})
        if new := runs() - before:
            break
        stack.api(f"deployments/{deployment}/schedules/{made['id']}", method="DELETE")
        seconds *= 2
        assert seconds < PATIENCE_SECONDS, "the clock makes no run"
    (run,) = new
    return str(run)


def person_starts(stack: RunningStack, style: str, **parameters: Any) -> str:
    """Start a style as the page's button does; a busy server is asked again."""
    deployment = stack.api(f"deployments/name/retrain/{style}")["id"]
    asked = {"parameters": parameters, "idempotency_key": str(uuid4())}

    def answer() -> Any:
        try:
            return stack.api(f"deployments/{deployment}/create_flow_run", asked)
        except AssertionError as error:
            if "503" in str(error):
                return None
            raise

    return str(until(answer)["id"])


def engines(stack: RunningStack) -> int:
    """Count the processes of flow runs of the state folder."""
    count = 0
    for process in psutil.process_iter():
        try:
            is_engine = any(part.endswith("flow_process.py") for part in process.cmdline())
            count += is_engine and process.environ().get("SDLORA_HOME") == str(stack.home)
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue
    return count


def test_a_persons_run_is_first_few_processes_wait_and_a_cancelled_run_stays_cancelled(stack: RunningStack) -> None:
    with ImageStore.open(stack.home) as store:
        queue = TrainingQueue(store.database, ("cpu",))
        holder = take_slot(queue)  # until all have come
        runs = {style: clock_starts(stack, style, 1 + number) for number, style in enumerate(CLOCKS)}
        until(lambda: len(queue.tickets()) == 3)
        runs[PERSONS] = person_starts(stack, PERSONS)
        until(lambda: len(queue.tickets()) == 4)
        waiting = queue.tickets()[1:]
        assert [t.request.asked_by for t in waiting] == ["person", "clock", "clock"]
        assert waiting[0].request.style == PERSONS
        assert [t.id for t in waiting[1:]] == sorted(t.id for t in waiting[1:])
        assert engines(stack) == 3

        last, first = waiting[2].request.style, waiting[1].request.style
        state = until(lambda: shown(stack, runs[last], "Waiting"))
        assert state["message"].startswith("3rd in the queue: another trains since ")
        stack.api(f"flow_runs/{runs[last]}/set_state", {"state": {"type": "CANCELLING"}})  # the page's Cancel
        assert stack.finished(runs[last])["type"] == "CANCELLED"
        queue.end(holder, "done")

        for style in (PERSONS, first):
            assert stack.finished(runs[style])["type"] == "COMPLETED"
        until(lambda: engines(stack) == 0)
        with store.read() as session:
            ended = {t.request.style: t for t in ended_tickets(session, 9)}
        outcomes = {style: (ended[style].state, ended[style].reason) for style in STYLES}
        assert outcomes == {
            PERSONS: ("done", None),
            first: ("done", None),
            last: ("cancelled", "Cancelled in Prefect's page."),
        }
        assert ended[PERSONS].taken_at < ended[PERSONS].ended_at < ended[first].taken_at  # type: ignore[operator]
        assert {ended[style].device for style in (PERSONS, first)} == {"cpu"}

        again = clock_starts(stack, last, 1)
        assert "a person cancelled this run" in stack.finished(again)["message"]
        with store.read() as session:
            assert last_runs(session, [last])[last].state == "skipped"
        person = person_starts(stack, last)
        assert stack.finished(person)["type"] == "COMPLETED"

        images = {style: {row.sha256 for row in store.dataset(style).images()} for style in STYLES}
    assert [len(images[style]) for style in STYLES] == [12, 12, 12]
    assert len(set.union(*images.values())) == 36
    for style in STYLES:
        assert len(list(stack.home.glob(f"runs/{style}/*/release/report.html"))) == 1


def shown(stack: RunningStack, run_id: str, name: str) -> dict[str, Any] | None:
    state: dict[str, Any] = stack.api(f"flow_runs/{run_id}")["state"]
    return state if state["name"] == name and state["message"].startswith("3rd") else None


def test_sdlora_cancel_stops_a_waiting_run_of_the_page_as_cancelled(stack: RunningStack) -> None:
    with ImageStore.open(stack.home) as store:
        queue = TrainingQueue(store.database, ("cpu",))
        holder = take_slot(queue)
        run = person_starts(stack, "props", force=True)
        until(lambda: len(queue.tickets()) == 2)
        queue.cancel(queue.tickets()[1], "ana")
        assert stack.finished(run)["type"] == "CANCELLED"
        queue.end(holder, "done")
        with store.read() as session:
            assert [t.reason for t in ended_tickets(session, 2)][1] == "Cancelled by ana."


def test_the_end_of_sdlora_up_cancels_nothing(stack: RunningStack) -> None:
    with ImageStore.open(stack.home) as store:
        queue = TrainingQueue(store.database, ("cpu",))
        holder = take_slot(queue)
        person_starts(stack, "ink", force=True)
        until(lambda: len(queue.tickets()) == 2)
        stack.process.terminate()
        stack.process.wait(60)
        assert [t.id for t in queue.tickets()] == [holder.id]
        other = queue.ask(Request("ink"))  # the place is free
        with store.read() as session:
            stopped = last_runs(session, ["ink"])["ink"]
        assert stopped.state == "lost"
        queue.end(other, "done")
        queue.end(holder, "done")
