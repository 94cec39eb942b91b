"""The file of a new style of few images: its values follow from their number, and a run can start with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.cli.app import app
from deployments.styles.few_images import FEW_IMAGES, FEWEST_IMAGES, fitted_settings
from deployments.styles.files import style_file
from sdlora.config import PipelineConfig, explain, load_config
from sdlora.data.split import Member, assign_sides
from sdlora.evaluation.gate import MIN_HELD_OUT_IMAGES
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model


def new_style(tmp_path: Path, count: int, *arguments: str) -> tuple[PipelineConfig, str]:
    """Type `sdlora new` on a folder with that many files named like images."""
    folder, home = tmp_path / f"{count} images", tmp_path / "home"
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number}.png").write_bytes(b"not looked at")
    name = f"style-{count}-{len(arguments)}"
    done = CliRunner().invoke(app, ["new", name, "--images", str(folder), *arguments, "--home", str(home)])
    assert done.exit_code == 0, done.output
    return load_config(style_file(home, name)), done.output


def test_twenty_images_get_fewer_steps_judges_and_a_person_and_the_output_says_so(tmp_path):
    config, output = new_style(tmp_path, 20)
    assert config.training.steps is not None and config.training.steps < 250
    assert config.training.keep == "last"
    assert (config.data.min_held_out_images, config.gate.mode) == (MIN_HELD_OUT_IMAGES, "ask")
    assert f"training.steps: {config.training.steps}, more steps would learn 20 images by heart" in output
    base = load_base_model(BaseModelConfig(), tmp_path / "home")
    shown = {setting.name: setting.origin for setting in explain(config, base, tmp_path / "home")}
    assert shown["training.steps"] == shown["gate.mode"] == "file"


@pytest.mark.parametrize("count", [FEWEST_IMAGES - 1, FEW_IMAGES + 1])
def test_other_numbers_of_images_get_the_defaults(tmp_path, count):
    config, _ = new_style(tmp_path, count)
    assert (config.training.steps, config.gate.mode) == (None, "automatic")
    assert config.data.min_held_out_images == 4


def test_a_source_that_only_the_run_can_count_gets_the_defaults(tmp_path):
    config, output = new_style(tmp_path, 20, "--images", "s3://bucket/art", "--json")
    assert config.training.steps is None
    assert json.loads(output)["fitted"] == []


def test_a_large_base_keeps_the_steps_of_its_family():
    assert {one.setting for one in fitted_settings(20, is_small_base=False)} == {
        "data.min_held_out_images",
        "gate.mode",
    }


@pytest.mark.parametrize("count", range(FEWEST_IMAGES, FEW_IMAGES + 1))
def test_a_run_has_enough_images_on_both_sides(count):
    values = {one.setting.removeprefix("data."): one.value for one in fitted_settings(count, is_small_base=True)}
    config = PipelineConfig(data={name: value for name, value in values.items() if "." not in name}).data
    members = [Member(number, f"{number:064x}", None) for number in range(count)]
    sides = list(assign_sides(members, [], config).splits.values())
    assert sides.count("train") >= config.min_train_images
    assert sides.count("held_out") >= config.min_held_out_images
    assert count < 16 or sides.count("held_out") >= MIN_HELD_OUT_IMAGES
