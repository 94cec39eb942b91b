"""`sdlora queue` and `sdlora cancel`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deployments.cli.app import app
from sdlora.store.image_store import ImageStore
from sdlora.store.tickets import Request, Ticket
from sdlora.store.training_queue import TrainingQueue
from tests.unit.deployments.test_json_output import documented, merged, shape, written


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def queue(home: Path):
    with ImageStore.open(home) as store:
        yield TrainingQueue(store.database)


@pytest.fixture
def busy(queue: TrainingQueue) -> list[Ticket]:
    """props trains; the clock's comics and a person's ink wait; ink was tried before."""
    queue.end(queue.ask(Request("ink")), "failed", "the disk is full\x1b[31m")
    taken = queue.take(queue.ask(Request("props", run_digest="5" * 64)))
    assert isinstance(taken, Ticket)
    return [taken, queue.ask(Request("comics", asked_by="clock")), queue.ask(Request("ink", what="compare"))]


def sdlora(home: Path, *arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["--home", str(home), *arguments], env={"COLUMNS": "200"})
    assert done.exit_code == code, done.output
    return done.output


def as_json(home: Path, *arguments: str) -> Any:
    return json.loads(sdlora(home, *arguments, "--json"))


def test_a_folder_without_images_has_an_empty_queue(home):
    assert sdlora(home, "queue") == "Nothing trains and nothing waits.\n"
    assert as_json(home, "queue") == {"slots": ["auto"], "tickets": [], "ended": []}
    assert not home.exists()


def test_the_queue_shows_places_people_devices_and_how_the_last_runs_ended(home, busy):
    shown = sdlora(home, "queue", "--ended", "3")
    lines = [re.split(r"\s{2,}|(?<=\d) (?=\d\d\d\d-)", line.strip()) for line in shown.splitlines()]
    assert [line[0].split()[:1] for line in lines[1:4]] == [[str(busy[0].id)], ["1"], ["2"]]
    for text in ("props", "running", "auto", "ink (compare)", "clock", "the disk is full\\x1b[31m", "failed"):
        assert text in shown
    assert shown.index("ink (compare)") < shown.index("comics")
    result = as_json(home, "queue", "--ended", "3")
    shapes = [shape(result), shape(as_json(home, "queue"))]
    assert written(merged(*shapes)) == documented("sdlora queue")
    told = [(one["style"], one["state"], one["place"], one["device"]) for one in result["tickets"]]
    assert told == [("props", "running", None, "auto"), ("ink", "waiting", 1, None), ("comics", "waiting", 2, None)]
    assert "token" not in shown + json.dumps(result)


def test_a_waiting_run_leaves_the_queue_and_a_training_is_asked_to_stop(home, busy, queue):
    assert "comics has left the queue." in sdlora(home, "cancel", "comics")
    assert "props saves a checkpoint and stops." in sdlora(home, "cancel", str(busy[0].id), "--by", "ana")
    assert [(t.title, t.cancelled_by) for t in queue.tickets()] == [("props", "ana"), ("ink (compare)", None)]
    assert "stopping" in sdlora(home, "queue")
    result = as_json(home, "cancel", "ink")
    assert written(shape(result)) == documented("sdlora cancel")
    assert result["tickets"][0]["state"] == "cancelled"
    assert "props saves" in sdlora(home, "cancel")  # the only one


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"Which run\? Name a style or a ticket\. There are: \d \(props\), \d \(ink \(compare\)\), \d \(comics\)"),
        (["inc\x1b[31m"], r"'inc\\x1b\[31m' neither trains nor waits\. There are: .*comics"),
    ],
)
def test_an_unclear_cancel_says_what_there_is(home, busy, queue, arguments, message):
    assert re.search(message, sdlora(home, "cancel", *arguments, code=1).replace("\n", " "))
    assert len(queue.tickets()) == 3


def test_with_an_empty_queue_there_is_nothing_to_cancel(home, queue):
    assert "Nothing trains and nothing waits" in sdlora(home, "cancel", code=1)
