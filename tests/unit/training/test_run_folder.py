from __future__ import annotations

import json
import subprocess
import sys

import pytest

from sdlora.core.errors import StorageError, TrainingError
from sdlora.training.run_folder import CurveWriter, claim, exclusive
from tests.unit.training.disk import disk_space
from tests.waiting import PATIENCE_SECONDS


def test_a_second_process_is_turned_away_until_the_first_ends(tmp_path):
    script = (
        "import sys, pathlib\n"
        "from sdlora.core.errors import TrainingError\n"
        "from sdlora.training.run_folder import exclusive\n"
        "try:\n with exclusive(pathlib.Path(sys.argv[1]), float(sys.argv[2])): print('entered')\n"
        "except TrainingError as error: print(error)"
    )

    def try_elsewhere(patience_seconds):
        command = [sys.executable, "-c", script, str(tmp_path), str(patience_seconds)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    with exclusive(tmp_path):
        refused = try_elsewhere(0).communicate()[0]
        assert f"Another process is training in {tmp_path}" in refused
        waiting = try_elsewhere(PATIENCE_SECONDS)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1)
    assert waiting.communicate()[0] == "entered\n"  # a run that was killed leaves its processes a moment to save


def test_a_folder_of_another_run_is_refused(tmp_path):
    claim(tmp_path, {"run_digest": "a" * 64, "precision": "bf16"})
    assert claim(tmp_path, {"run_digest": "a" * 64, "precision": "fp32"})["precision"] == "bf16"
    with pytest.raises(TrainingError, match=r"a{12}, not b{12}.*settings changed"):
        claim(tmp_path, {"run_digest": "b" * 64})


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"run_dig')
    with pytest.raises(TrainingError, match=r"config\.json is damaged"):
        claim(tmp_path, {"run_digest": "a" * 64})


def test_the_curve_goes_on_from_the_checkpoints_points(tmp_path):
    curve = CurveWriter(tmp_path)
    curve.add(1, {"loss": 0.5})
    saved = list(curve.points)
    curve.add(2, {"loss": 0.4})  # lost: measured after the checkpoint
    resumed = CurveWriter(tmp_path, saved)
    resumed.add(2, {"loss": 0.3})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == resumed.points == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.3}]


def test_a_full_disk_is_named(tmp_path):
    with disk_space(10), pytest.raises(StorageError, match=str(tmp_path)):
        CurveWriter(tmp_path).add(1, {"loss": 0.123456789})
