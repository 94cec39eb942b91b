from __future__ import annotations

import re

import pytest
import torch

from sdlora.core.errors import ConfigError, TargetModuleError, TrainingError
from sdlora.training.suitability import check_rows, check_settings
from tests.settings import filled_lora, filled_training
from tests.unit.training.setting import as_snapshot

LORA = filled_lora(rank=2)
TRAINING = filled_training(resolutions=(64,))


@pytest.mark.parametrize(
    ("lora", "training", "processes", "error", "message"),
    [
        # One pattern fits and the other does not: that is a mistake, too.
        (
            {"target_modules": ("to_q", "to_x")},
            {},
            1,
            TargetModuleError,
            r"lora\.target_modules: 'to_x' match no layer",
        ),
        ({"rank": 64}, {}, 1, TargetModuleError, r"lora\.rank: 64 is above the width .* Set lora\.rank to \d+ or less"),
        ({"text_encoder_rank": 64}, {}, 1, TargetModuleError, r"lora\.text_encoder_rank: 64 .* Set 16 or less"),
        ({}, {"resolutions": (64, 60)}, 1, TrainingError, r"training\.resolutions: 60 .* multiples of 16 px\. Set 64"),
        ({}, {"batch_size": 4}, 3, TrainingError, r"training\.batch_size: 4 .* 3 processes\. Set a multiple"),
    ],
)
def test_a_wrong_setting_is_named_with_its_remedy_before_any_image_is_looked_at(
    base, lora, training, processes, error, message
):
    with pytest.raises(error, match=message):
        check_settings(
            base, LORA.model_copy(update=lora), TRAINING.model_copy(update=training), num_processes=processes
        )


def test_right_settings_pass(base):
    check_settings(base, LORA, TRAINING, 2)
    check_settings(base, None, TRAINING, 1)


def test_an_optimiser_that_is_not_installed_is_told_before_the_images(base, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "prodigyopt", None)
    with pytest.raises(ConfigError, match=r"training\.optimizer"):
        check_settings(base, LORA, filled_training(optimizer="prodigy"), 1)


def test_more_processes_than_gpus_are_refused(base, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_settings(base, LORA, TRAINING, 2)
    with pytest.raises(TrainingError, match=r"training\.num_processes: 4 .* this machine has 2"):
        check_settings(base, LORA, TRAINING, 4)


def test_a_snapshot_whose_images_are_all_held_out_is_refused_with_their_number(snapshot):
    check_rows(snapshot, TRAINING)
    held_out = as_snapshot(list(snapshot.held_out))
    with pytest.raises(TrainingError, match=re.escape(f"all of its {len(snapshot.held_out)} images are held out")):
        check_rows(held_out, TRAINING)
    with pytest.raises(TrainingError, match=r"no training images\. Collect more"):
        check_rows(as_snapshot([]), TRAINING)
