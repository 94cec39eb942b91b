"""Decisions of people from the command line, without the name of a style."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.cli.app import app
from sdlora.records.champions import ScoredVersion
from sdlora.records.decision import Decision
from sdlora.store.champions import record_decision
from sdlora.store.image_store import ImageStore
from tasks.tracking import Registry
from tasks.tracking.notes import NOTES_TAG, pack_notes

DIGEST = "a" * 64


@pytest.fixture
def home(tmp_path: Path) -> Path:
    ImageStore.open(tmp_path / "home").close()
    return tmp_path / "home"


def wait(home: Path, style: str, number: int) -> None:
    """Let a version wait for a person."""
    asked = Decision(
        promote=False, waits=True, answer="cannot tell", reasons=("few images",), checks=(), duel_digest="d" * 64,
        candidate_digest=DIGEST, champion_digest=None,
    )  # fmt: skip
    with ImageStore.open(home) as store, store.write() as session:
        record_decision(session, style, ScoredVersion(number, DIGEST), asked, None)


def run(home: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(app, ["--home", str(home), *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result.stdout, " ".join(result.stderr.split())


@pytest.mark.parametrize("command", ["promote", "reject"])
def test_without_a_name_the_styles_that_wait_are_listed(home, command):
    assert "No version waits for a decision" in run(home, command, code=1)[1]
    wait(home, "wood", 2)
    wait(home, "ink", 3)
    refused = run(home, command, code=1)[1]
    assert f"wait for a decision: ink version 3, wood version 2. Name one, such as `sdlora {command} ink`" in refused
    assert "name the style of version 3" in run(home, command, "--version", "3", code=2)[1]


def test_without_a_name_the_only_version_that_waits_is_taken(home):
    client = Registry(home).client
    client.create_registered_model("ink")
    notes = pack_notes({"adapter_digest": DIGEST, "published": "2026-11-30T08:00:00+00:00"})
    client.create_model_version("ink", source="file:///none", tags={NOTES_TAG: notes})
    wait(home, "ink", 1)
    answer, note = run(home, "reject", "--why", "too smooth", "--json")
    assert "Version 1 of ink is the only one that waits for a decision." in note
    decided = json.loads(answer)
    assert (decided["style"], decided["version"], decided["decision"]) == ("ink", 1, "rejected")
