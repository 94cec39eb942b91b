from __future__ import annotations

import json

import pytest

from sdlora.core.progress import SILENT
from sdlora.evaluation.config import GateConfig
from sdlora.evaluation.gate import decide
from sdlora.integrity.adapters import AdapterFolder, evidence_copies
from sdlora.integrity.copies import verify_copies
from tests.unit.evaluation.made_duel import made_duel


def write(path, value):
    path.write_text(json.dumps(value.model_dump(mode="json"), indent=1))


@pytest.fixture
def evidence(tmp_path):
    """A release and a registered copy of it, with the digests of one decision, and of a later one."""
    duel = made_duel()
    decision = decide(duel, GateConfig())
    later = decision.model_copy(update={"reasons": ("another",)})
    folders = []
    for name in ("release", "registered"):
        folder = tmp_path / name
        folder.mkdir()
        write(folder / "duel.json", duel)
        write(folder / "decision.json", decision)
        folders.append(AdapterFolder(folder, name, "0" * 16, "adapter", "Ask again.", has_evidence=True))
    return folders, decision, later


def check(folders, *decisions, repair=True):
    copies = evidence_copies(folders, {"0" * 16: {decision.digest() for decision in decisions}})
    found = verify_copies(copies, SILENT.on_progress, repair=repair)
    return {(each.what, each.problem, each.repaired) for each in found}


def test_damaged_evidence_is_restored_from_another_copy(evidence):
    folders, decision, _ = evidence
    assert check(folders, decision) == set()
    whole = {path: path.read_bytes() for path in folders[0].folder.iterdir()}
    (folders[0].folder / "duel.json").unlink()
    text = (folders[0].folder / "decision.json").read_text()
    (folders[0].folder / "decision.json").write_text(text.replace("true", "false", 1))
    expected = {("duel.json of release", "missing"), ("decision.json of release", "damaged")}
    assert check(folders, decision, repair=False) == {(*each, False) for each in expected}
    assert check(folders, decision) == {(*each, True) for each in expected}
    assert {path: path.read_bytes() for path in whole} == whole


def test_each_copy_may_hold_its_own_recorded_decision(evidence):
    folders, decision, later = evidence
    write(folders[0].folder / "decision.json", later)
    assert check(folders, decision, later) == set()
    assert check(folders, decision) == {("decision.json of release", "damaged", True)}


def test_a_lost_decision_of_several_is_not_guessed(evidence):
    folders, decision, later = evidence
    (folders[0].folder / "decision.json").unlink()
    assert check(folders, decision, later) == {("decision.json of release", "missing", False)}
    assert not (folders[0].folder / "decision.json").exists()
