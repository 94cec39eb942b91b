"""The memory of settings that passed: a second look takes no model library, and nothing wrong is remembered."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from sdlora.core.errors import TargetModuleError, TrainingError, WeightsError
from sdlora.training.checked_settings import check_settings_once
from tests.settings import filled_lora, filled_training

LORA, TRAINING = filled_lora(rank=2), filled_training(resolutions=(64,))
ONCE_MORE = """
import sys
from pathlib import Path
from sdlora.core.refs import BaseModelRef
from sdlora.lora.config import ResolvedLora
from sdlora.training.checked_settings import check_settings_once
from sdlora.training.config import ResolvedTraining

lora, training = ResolvedLora.model_validate_json(sys.argv[1]), ResolvedTraining.model_validate_json(sys.argv[2])
check_settings_once(BaseModelRef.model_validate_json(sys.argv[3]), lora, training, Path(sys.argv[4]))
print(sorted({"torch", "diffusers", "transformers", "peft"} & sys.modules.keys()))
"""


def in_another_process(base, lora, training, home) -> subprocess.CompletedProcess[str]:
    settings = [part.model_dump_json() for part in (lora, training, base)]
    return subprocess.run([sys.executable, "-c", ONCE_MORE, *settings, str(home)], capture_output=True, text=True)


def test_settings_that_passed_are_not_built_again(base, tmp_path):
    check_settings_once(base, LORA, TRAINING, tmp_path)
    done = in_another_process(base, LORA, TRAINING, tmp_path)
    assert done.stdout == "[]\n", done.stderr


def test_wrong_settings_are_refused_each_time_although_right_ones_passed(base, tmp_path):
    check_settings_once(base, LORA, TRAINING, tmp_path)
    for _ in range(2):
        with pytest.raises(TargetModuleError, match=r"lora\.rank: 64"):
            check_settings_once(base, LORA.model_copy(update={"rank": 64}), TRAINING, tmp_path)
        with pytest.raises(TrainingError, match=r"training\.resolutions: 60"):
            check_settings_once(base, LORA, TRAINING.model_copy(update={"resolutions": (60,)}), tmp_path)


def test_another_base_model_is_looked_at(base, tmp_path):
    check_settings_once(base, LORA, TRAINING, tmp_path)
    other = base.model_copy(update={"digest": "0" * 64, "folder": tmp_path / "gone"})
    with pytest.raises(WeightsError, match="gone"):
        check_settings_once(other, LORA, TRAINING, tmp_path)


@pytest.mark.parametrize("content", ["{", "[1]", ""])
def test_a_damaged_memory_is_written_anew(base, tmp_path, content):
    path = tmp_path / "cache" / "checked-settings.json"
    path.parent.mkdir()
    path.write_text(content)
    check_settings_once(base, LORA, TRAINING, tmp_path)
    assert list(json.loads(path.read_text()).values()) == [True]
