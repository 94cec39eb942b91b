"""Addresses, notes and the page of a style, without a server."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from sdlora.records.champions import ChampionHistory, HistoryEntry, ScoredVersion
from tasks.tracking import RunPage
from tasks.tracking.links import browser_address
from tasks.tracking.notes import NOTES_TAG, merge_notes, pack_notes
from tasks.tracking.style_page import style_description


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
    assert page.image_source("images/summary.png") == "get-artifact?path=images%2Fsummary.png&run_uuid=abc"
    assert page.absolute_url(page.route) == "http://127.0.0.1:5000/#/experiments/1/runs/abc"
    assert RunPage("1", "abc", None).absolute_url(page.route) is None


def test_notes_win_over_tags_that_a_person_wrote():
    tags = {"kid": "0.5", "run_digest": "typed", NOTES_TAG: pack_notes({"run_digest": "noted"})}
    assert merge_notes(tags) == {"kid": "0.5", "run_digest": "noted"}


@pytest.mark.parametrize("damaged", ["", "{", "[1]"])
def test_a_damaged_tag_costs_its_notes_and_no_list_of_versions(damaged):
    assert merge_notes({"kid": "0.5", NOTES_TAG: damaged}) == {"kid": "0.5"}


def move(number, version, before, after, day):
    when = datetime(2026, 11, day, 10, 0, tzinfo=UTC)
    scored = ScoredVersion(version, f"{version}" * 8)
    kind, who = ("promoted", "gate") if version == after else ("moved by hand", "ana")
    return HistoryEntry(number, kind, scored, before, after, who, "", when, decision_digest="d")


HISTORY = ChampionHistory("icons", (move(1, 1, None, 1, 1), move(2, 2, 1, 1, 2), move(3, 4, 1, 4, 5)))


def rows(page):
    return [line.replace("&emsp;", "") for line in page.splitlines() if line.startswith("| version")]


def test_the_page_of_a_style_tells_who_was_champion_when():
    page = style_description(HISTORY, "embedded", 5)
    assert "for the base model embedded" in page
    assert "**Champion: [version 4](#/models/icons/versions/4)** since 2026-11-05 10:00 UTC" in page
    assert rows(page) == [
        "| version 4 | 2026-11-05 10:00 UTC | now | gate |",
        "| version 1 | 2026-11-01 10:00 UTC | 2026-11-05 10:00 UTC | gate |",
    ]


def test_the_page_of_a_style_whose_champion_a_person_removed_says_that_there_is_none():
    page = style_description(replace(HISTORY, entries=(*HISTORY.entries, move(4, 4, 4, None, 6))), "embedded", 5)
    assert "**No champion:** a person removed the alias." in page
    assert "**No champion yet:** no version has passed" in style_description(ChampionHistory("icons"), "embedded", 1)
    assert rows(page)[0] == "| version 4 | 2026-11-05 10:00 UTC | 2026-11-06 10:00 UTC | gate |"


def test_a_long_history_stays_within_what_mlflow_keeps():
    many = tuple(move(i, i, i - 1, i, 1) for i in range(1, 500))
    assert len(style_description(ChampionHistory("a" * 200, many), "b" * 200, 500)) < 5000
