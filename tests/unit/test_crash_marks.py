"""The seconds of stages are read from marks that runs leave, also of runs that were killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.crashes.chain import Entries
from benchmarks.crashes.marks import STAGES, Marks


def write(marks: Marks, *lines: tuple[str, str, float, int]) -> None:
    with marks.path.open("a") as file:
        for stage, event, at, pid in lines:
            file.write(json.dumps({"stage": stage, "event": event, "at": at, "pid": pid}) + "\n")


def test_the_seconds_of_a_stage_are_summed_over_runs_and_those_within_a_strike_are_known(tmp_path: Path):
    marks = Marks(tmp_path)
    write(marks, ("clean", "begin", 1.0, 7), ("clean", "end", 5.0, 7), ("duel", "begin", 6.0, 7))
    write(marks, ("clean", "begin", 9.0, 8), ("clean", "end", 10.0, 8), ("duel", "begin", 11.0, 8))
    write(marks, ("duel", "end", 14.0, 8))
    assert marks.stage_seconds() == dict.fromkeys(STAGES, 0.0) | {"clean": 5.0, "duel": 3.0}
    assert marks.seconds_within([(3.0, 9.5), (13.0, 20.0)]) == dict.fromkeys(STAGES, 0.0) | {"clean": 2.5, "duel": 1.0}


def test_a_stage_of_a_killed_run_ends_when_it_is_closed(tmp_path: Path):
    marks = Marks(tmp_path)
    began = time.monotonic() - 2.0
    write(marks, ("collect", "begin", began - 1.0, 7), ("collect", "end", began, 7), ("clean", "begin", began, 7))
    marks.close()
    assert 2.0 <= marks.stage_seconds()["clean"] <= time.monotonic() - began
    assert marks.stage_seconds()["collect"] == pytest.approx(1.0)


def test_each_stage_is_entered_once_and_one_that_a_killed_run_passed_over_is_entered_later(tmp_path: Path):
    marks = Marks(tmp_path)
    entries = Entries(marks, ["base", "clean"])
    assert entries.next() is None
    write(marks, ("base", "begin", 1.0, 7), ("base", "end", 2.0, 7))
    assert entries.next() == ("base", 1.0)
    write(marks, ("clean", "begin", 2.0, 7))
    entries.skip()
    assert entries.next() is None
    write(marks, ("base", "begin", 3.0, 8), ("base", "end", 4.0, 8), ("clean", "begin", 5.0, 8))
    assert entries.next() == ("clean", 5.0)
    assert entries.left == []


def test_a_process_writes_marks_of_the_tasks_of_stages_alone(tmp_path: Path):
    marks = Marks(tmp_path)
    script = """
from prefect.tasks import task
@task
def make_snapshot(rows): return rows + 1
@task
def other(): pass
assert make_snapshot.fn(3) == 4
other.fn()
"""
    subprocess.run([sys.executable, "-c", script], env=marks.variables, check=True)
    assert [(event["stage"], event["event"]) for event in marks.events()] == [
        ("snapshot", "begin"),
        ("snapshot", "end"),
    ]
