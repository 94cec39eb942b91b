from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdlora.core.errors import EvaluationError, StorageError, WeightsError
from sdlora.records.decision import Decision
from sdlora.records.duel import load_duel
from sdlora.release.folder import write_release
from tests.unit.evaluation.made_duel import made_duel
from tests.unit.release.made_record import made_record

FILES = {
    "README.md", "pytorch_lora_weights.safetensors", "icons.safetensors", "adapter.json", "duel.json",
    "decision.json", "report.html", "grid.png",
}  # fmt: skip


def test_the_folder_holds_weights_card_report_and_evidence(tmp_path: Path) -> None:
    record = made_record(tmp_path)
    folder = write_release(tmp_path / "release", record)
    assert {path.name for path in folder.iterdir()} == FILES
    assert (folder / "icons.safetensors").read_bytes() == b"bytes of icons.safetensors"
    assert (folder / "icons.safetensors").samefile(record.adapter_folder / "icons.safetensors")
    assert load_duel(folder).digest() == record.duel.digest()
    assert Decision.model_validate(json.loads((folder / "decision.json").read_text())) == record.decision


def test_writing_again_replaces_all_of_it(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "release", made_record(tmp_path))
    (folder / "stale.txt").write_text("old")
    write_release(folder, made_record(tmp_path))
    assert {path.name for path in folder.iterdir()} == FILES
    assert not list(tmp_path.glob(".release*"))


def test_a_decision_on_another_duel_is_refused(tmp_path: Path) -> None:
    record = made_record(tmp_path, duel=made_duel(folder=tmp_path / "evaluation", reach=0.02))
    with pytest.raises(EvaluationError, match="The decision is bound to duel"):
        write_release(tmp_path / "release", record)
    assert not (tmp_path / "release").exists()


def test_a_missing_adapter_file_leaves_the_earlier_release(tmp_path: Path) -> None:
    record = made_record(tmp_path)
    folder = write_release(tmp_path / "release", record)
    (record.adapter_folder / "icons.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"icons\.safetensors is missing"):
        write_release(folder, record)
    assert {path.name for path in folder.iterdir()} == FILES
    assert not list(tmp_path.glob(".release*"))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"Cannot write the release to .*file/release"):
        write_release(tmp_path / "file" / "release", made_record(tmp_path))
