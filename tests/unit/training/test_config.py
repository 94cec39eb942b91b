from __future__ import annotations

import pytest
from pydantic import ValidationError

from sdlora.lora import LoraConfig
from sdlora.training import TrainingConfig, run_digest


def test_a_preset_fills_what_is_left_empty_and_what_is_given_wins():
    small, thorough = TrainingConfig(preset="small"), TrainingConfig(preset="thorough")
    assert small.steps < TrainingConfig().steps < thorough.steps
    assert small.warmup_steps < thorough.warmup_steps
    assert TrainingConfig(preset="small", steps=7).steps == 7


@pytest.mark.parametrize("preset", ["small", "standard", "thorough"])
def test_the_resolved_settings_mean_the_same_when_read_again(preset):
    config = TrainingConfig(preset=preset)
    assert TrainingConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    "wrong",
    [{"preset": "huge"}, {"steps": 0}, {"learning_rate": 0}, {"max_grad_norm": 0}, {"caption_dropout": 1.5}, {"lr": 1}],
)
def test_wrong_settings_are_refused_by_name(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        TrainingConfig(**wrong)


def test_schedule_free_refuses_a_schedule_and_a_second_average():
    assert TrainingConfig(optimizer="schedule_free").schedule == "constant"
    with pytest.raises(ValidationError, match="schedule: schedule_free replaces it"):
        TrainingConfig(optimizer="schedule_free", schedule="cosine")
    with pytest.raises(ValidationError, match="ema_decay"):
        TrainingConfig(optimizer="schedule_free", ema_decay=0.9)


def test_the_run_digest_changes_with_everything_that_changes_the_adapter():
    lora, config = LoraConfig(), TrainingConfig()
    digests = {
        run_digest("base", "snapshot", lora, config),
        run_digest("other", "snapshot", lora, config),
        run_digest("base", "other", lora, config),
        run_digest("base", "snapshot", LoraConfig(rank=8), config),
        run_digest("base", "snapshot", LoraConfig(alpha=8), config),
        run_digest("base", "snapshot", LoraConfig(targets="attention"), config),
        *(
            run_digest("base", "snapshot", lora, TrainingConfig(**change))
            for change in (
                {"seed": 1},
                {"preset": "small"},
                {"learning_rate": 1e-3},
                {"ema_decay": 0.99},
                {"min_snr_gamma": None},
                {"precision": "fp32"},
            )
        ),
    }
    assert len(digests) == 12


def test_the_run_digest_ignores_what_only_reports_or_saves():
    lora = LoraConfig()
    expected = run_digest("base", "snapshot", lora, TrainingConfig(keep="last"))
    for change in (
        {"log_every_steps": 3},
        {"validation_every_steps": 7},
        {"checkpoint_every_seconds": 5},
        {"checkpoint_every_steps": 5},
        {"preset": "small", "steps": TrainingConfig().steps},
    ):
        assert run_digest("base", "snapshot", lora, TrainingConfig(keep="last", **change)) == expected, change


def test_when_is_measured_matters_only_if_the_best_is_kept():
    digests = [
        run_digest("base", "snapshot", LoraConfig(), TrainingConfig(validation_every_steps=every)) for every in (7, 8)
    ]
    assert digests[0] != digests[1]
