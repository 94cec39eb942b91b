from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sdlora.config import PipelineConfig, explain, load_config, parse_flags, resolve
from sdlora.core.errors import ConfigError
from sdlora.core.schedule import ScheduleConfig
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model


def settings_of(tmp_path: Path, text: str, *flags: str) -> dict[str, tuple[object, str]]:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    given = parse_flags(flags)
    config = load_config(path, given)
    base = load_base_model(BaseModelConfig(), tmp_path)
    return {one.name: (one.value, one.origin) for one in explain(config, base, tmp_path, given)}


def test_every_setting_tells_where_it_comes_from(tmp_path: Path) -> None:
    shown = settings_of(
        tmp_path, "training: {preset: small, learning_rate: 0.001, steps: 50}\nlora: {rank: 4}", "training.steps=70"
    )
    assert shown["training.steps"] == (70, "flag")
    assert shown["training.learning_rate"] == (0.001, "file")
    assert shown["lora.rank"] == (4, "file")
    assert shown["training.resolutions"] == ((64,), "family sd1")
    assert shown["training.validation_every_steps"] == (100, "preset small")
    assert shown["training.warmup_steps"] == (3, "follows steps")
    assert shown["lora.alpha"] == (4, "follows rank")
    assert shown["training.weight_decay"][1] == "default"
    assert shown["training.precision"][0] in ("fp32", "bf16") and shown["training.precision"][1] == "measured"


def test_a_key_that_is_written_and_left_empty_is_empty(tmp_path: Path) -> None:
    empty = settings_of(tmp_path, "training:\nlora: {rank: }\ndata: {min_side_px: null}\ngate: {max_time_factor: null}")
    assert empty["training.steps"] == (2000, "preset standard")
    assert empty["lora.rank"] == (16, "family sd1")
    assert empty["data.min_side_px"] == (32, "default")
    assert empty["gate.max_time_factor"] == (None, "file")  # null is a value of its own: no limit


def test_a_flag_of_another_form_or_an_unknown_setting_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--set steps: expected"):
        settings_of(tmp_path, "", "steps")
    with pytest.raises(ConfigError, match=r"training\.step: unknown setting. Did you mean 'steps'"):
        settings_of(tmp_path, "", "training.step=3")
    with pytest.raises(ConfigError, match=r"--set name\.x"):
        settings_of(tmp_path, "name: style", "name.x=3")


def test_the_command_prints_the_table_and_does_nothing(tmp_path: Path) -> None:
    from deployments.cli.app import app

    path = tmp_path / "config.yaml"
    path.write_text("training: {steps: 50}")
    arguments = ["run", "--config", str(path), "--home", str(tmp_path / "home"), "--show-config"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    assert "training.steps" in result.output and "file" in result.output
    assert not (tmp_path / "home" / "images.db").exists()


def test_the_schedule_is_shown_and_is_no_part_of_a_runs_identity(tmp_path: Path) -> None:
    shown = settings_of(tmp_path, "schedule: {cron: 0 3 * * *}")
    assert shown["schedule.cron"] == ("0 3 * * *", "file")
    assert shown["schedule.timezone"] == ("UTC", "default")
    base = load_base_model(BaseModelConfig(), tmp_path)
    digests = {
        resolve(PipelineConfig(schedule=ScheduleConfig(cron=cron)), base, tmp_path).digest()
        for cron in (None, "0 3 * * *")
    }
    assert len(digests) == 1
