"""The page of crashes is made from the record of the benchmark, and says what was not run."""

from __future__ import annotations

from pathlib import Path

from benchmarks.crash_page import Cell, add_cells, page, read_cells
from benchmarks.crashes import STAGES, titles

PROJECT = Path(__file__).parents[2]
GOOD = Cell("killed", "duel", "continues", 3.4, 2.0, "2026-11-30", "abc1234")
FAILED = Cell("killed", "base", "continues: ended with 1", None, 2.0, "2026-11-30", "abc1234")


def test_the_committed_page_is_that_of_the_committed_record():
    cells = read_cells(PROJECT / "benchmarks" / "crashes.json")
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
