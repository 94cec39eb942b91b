"""Addresses, notes and the page of a line of adapters, without a server."""

from __future__ import annotations

import pytest

from tasks.tracking import RunPage, notes
from tasks.tracking.line_page import line_description
from tasks.tracking.links import browser_address


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("http://127.0.0.1:5000/", "http://127.0.0.1:5000"),
        ("https://me:secret@mlflow.example/prefix", "https://mlflow.example/prefix"),
        ("sqlite:////home/me/mlflow.db", None),
    ],
)
def test_only_a_server_has_an_address_and_it_holds_no_credentials(uri, address):
    assert browser_address(uri) == address


def test_a_link_of_a_description_holds_whatever_port_the_server_has():
    page = RunPage("1", "abc", "http://127.0.0.1:5000")
    assert page.file("data/a b.html") == "#/experiments/1/runs/abc/artifacts/data/a%20b.html"
    assert page.picture("images/summary.png") == "get-artifact?path=images%2Fsummary.png&run_uuid=abc"
    assert page.whole(page.route) == "http://127.0.0.1:5000/#/experiments/1/runs/abc"
    assert RunPage("1", "abc", None).whole(page.route) is None


def test_notes_win_over_tags_that_a_person_wrote():
    tags = {"kid": "0.5", "run_digest": "typed", notes.TAG: notes.pack({"run_digest": "noted"})}
    assert notes.merged(tags) == {"kid": "0.5", "run_digest": "noted"}


@pytest.mark.parametrize("damaged", ["", "{", "[1]"])
def test_a_damaged_tag_costs_its_notes_and_no_list_of_versions(damaged):
    assert notes.merged({"kid": "0.5", notes.TAG: damaged}) == {"kid": "0.5"}


HISTORY = [
    {"from": "", "to": "1", "evidence_digest": "a", "at": "2026-11-01T10:00:00+00:00"},
    {"from": "1", "to": "4", "evidence_digest": "b", "at": "2026-11-05T12:30:00+00:00"},
]


def test_the_page_of_a_line_tells_who_was_champion_when():
    page = line_description("icons", "embedded", 5, 4, HISTORY)
    assert "for the base model embedded" in page
    assert "**Champion: [version 4](#/models/icons/versions/4)** since 2026-11-05 12:30 UTC" in page
    rows = [line.replace("&emsp;", "") for line in page.splitlines() if line.startswith("| version")]
    assert rows == [
        "| version 4 | 2026-11-05 12:30 UTC | now |",
        "| version 1 | 2026-11-01 10:00 UTC | 2026-11-05 12:30 UTC |",
    ]


def test_a_champion_that_a_person_chose_in_mlflow_gets_no_date_of_another():
    page = line_description("icons", "embedded", 5, 2, HISTORY)
    assert "**Champion: [version 2](#/models/icons/versions/2)**. " in page
    assert "changed by hand" in page
    assert "now" not in page


def test_a_long_history_stays_within_what_mlflow_keeps():
    many = [{"from": "", "to": str(i), "evidence_digest": "a", "at": "2026-11-01T10:00:00+00:00"} for i in range(500)]
    assert len(line_description("a" * 200, "b" * 200, 500, 499, many)) < 5000
