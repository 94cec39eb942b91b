"""The page of crashes is made from the record of the benchmark, and says what was not run."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import psutil

from benchmarks.crashes.faults import kill_prefect
from benchmarks.crashes.marks import STAGES, Marks
from benchmarks.crashes.page import Cell, add_cells, page, read_cells
from benchmarks.crashes.setting import Setting
from benchmarks.crashes.table import titles
from tests.waiting import wait_until

PROJECT = Path(__file__).parents[2]
GOOD = Cell("killed", "duel", "continues", 3.4, 2.0, "2026-11-30", "abc1234")
FAILED = Cell("killed", "base", "continues: ended with 1", None, 2.0, "2026-11-30", "abc1234")


def test_the_committed_page_is_that_of_the_committed_record():
    cells = read_cells(PROJECT / "benchmarks" / "crashes" / "record.json")
    assert (PROJECT / "docs" / "crashes.md").read_text() == page(cells, titles(), STAGES)


def test_a_cell_measured_again_replaces_the_earlier_one_and_the_others_stay(tmp_path: Path):
    record = tmp_path / "record.json"
    add_cells(record, [GOOD, FAILED])
    again = Cell("killed", "base", "continues", 1.0, 9.0, "2026-12-01", "def5678")
    assert add_cells(record, [again]) == [GOOD, again] == read_cells(record)


def test_the_page_shows_outcomes_failures_and_what_was_not_run():
    text = page([GOOD, FAILED], {"killed": "run killed", "disk": "disk full"}, ["base", "duel", "publish"])
    assert "| run killed (`killed`) | **failed** | continues, 3 s |  |" in text
    assert "- run killed, base: continues: ended with 1" in text
    assert "Not run at any stage: `disk`. Not run: `killed` at publish." in text
    assert "2026-11-30 at commit abc1234" in text


def has_server(run: subprocess.Popen[bytes]) -> bool:
    for child in psutil.Process(run.pid).children():
        with contextlib.suppress(psutil.Error):  # it may end just now
            if "create_app" in " ".join(child.cmdline()):
                return True
    return False


def test_a_server_that_is_away_already_is_not_said_to_be_struck(tmp_path: Path):
    setting = Setting(tmp_path, tmp_path / "shapes.yaml", {}, Marks(tmp_path))
    script = tmp_path / "run.sh"  # not in the command line: a child has its parent's for a moment
    script.write_text("sh -c 'sleep 60; :' deployments.servers.prefect_server:create_app & wait; sleep 3600")
    with subprocess.Popen(["sh", str(script)]) as run:
        try:
            wait_until(lambda: has_server(run), "the start of the server")
            assert kill_prefect(setting, run)
            wait_until(lambda: not has_server(run), "the end of the server")
            assert not kill_prefect(setting, run)
        finally:
            for child in psutil.Process(run.pid).children(recursive=True):
                child.kill()
            run.kill()
