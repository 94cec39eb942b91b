from __future__ import annotations

import pytest
from pydantic import ValidationError

from sdlora.training.config import ResolvedTraining, TrainingConfig
from sdlora.training.identity import run_digest
from tests.settings import filled_lora, filled_training


def test_a_preset_fills_what_is_left_empty_and_what_is_given_wins():
    small, thorough = filled_training(preset="small"), filled_training(preset="thorough")
    assert small.steps < filled_training().steps < thorough.steps
    assert small.warmup_steps < thorough.warmup_steps
    assert filled_training(preset="small", steps=7).steps == 7


@pytest.mark.parametrize("preset", ["small", "standard", "thorough"])
def test_the_resolved_settings_mean_the_same_when_read_again(preset):
    config = filled_training(preset=preset)
    assert ResolvedTraining.model_validate_json(config.model_dump_json()) == config


def test_empty_settings_are_none_until_they_are_resolved():
    assert {name for name, value in TrainingConfig(resolutions=()) if value is None} > {"steps", "resolutions"}
    with pytest.raises(ValidationError, match="steps"):
        ResolvedTraining.model_validate(TrainingConfig().model_dump())


@pytest.mark.parametrize(
    "wrong",
    [{"preset": "huge"}, {"steps": 0}, {"learning_rate": 0}, {"max_grad_norm": 0}, {"caption_dropout": 1.5}, {"lr": 1}],
)
def test_wrong_settings_are_refused_by_name(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        TrainingConfig(**wrong)


def test_schedule_free_refuses_a_schedule_and_a_second_average():
    assert filled_training(optimizer="schedule_free").schedule == "constant"
    with pytest.raises(ValidationError, match="schedule: schedule_free replaces it"):
        filled_training(optimizer="schedule_free", schedule="cosine")
    with pytest.raises(ValidationError, match="ema_decay"):
        filled_training(optimizer="schedule_free", ema_decay=0.9)


def test_the_run_digest_changes_with_everything_that_changes_the_adapter():
    lora, config = filled_lora(), filled_training()
    digests = {
        run_digest("base", "snapshot", lora, config),
        run_digest("other", "snapshot", lora, config),
        run_digest("base", "other", lora, config),
        run_digest("base", "snapshot", filled_lora(rank=8), config),
        run_digest("base", "snapshot", filled_lora(alpha=8), config),
        run_digest("base", "snapshot", filled_lora(targets="attention"), config),
        *(
            run_digest("base", "snapshot", lora, filled_training(**change))
            for change in (
                {"seed": 1},
                {"preset": "small"},
                {"learning_rate": 1e-3},
                {"ema_decay": 0.99},
                {"min_snr_gamma": 0},
                {"precision": "bf16"},
            )
        ),
    }
    assert len(digests) == 12


def test_the_run_digest_ignores_what_only_reports_or_saves():
    lora = filled_lora()
    expected = run_digest("base", "snapshot", lora, filled_training(keep="last"))
    for change in (
        {"log_every_steps": 3},
        {"validation_every_steps": 7},
        {"checkpoint_every_seconds": 5},
        {"checkpoint_every_steps": 5},
        {"preset": "small", "steps": filled_training().steps},
    ):
        assert run_digest("base", "snapshot", lora, filled_training(keep="last", **change)) == expected, change


def test_when_is_measured_matters_only_if_the_best_is_kept():
    digests = [
        run_digest("base", "snapshot", filled_lora(), filled_training(validation_every_steps=every)) for every in (7, 8)
    ]
    assert digests[0] != digests[1]
