from __future__ import annotations

from pathlib import Path

import pytest

from sdlora.config import PipelineConfig, ResolvedConfig, load_config, load_file
from sdlora.core.errors import ConfigError
from sdlora.pretraining.config import PretrainPlan
from tests.settings import filled_lora, filled_training


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text)
    return path


def test_a_misspelt_key_is_refused_by_name_with_the_nearest_known_one(tmp_path):
    path = write(tmp_path, "training: {learning_rat: 0.1}\n")
    with pytest.raises(ConfigError, match=r"training\.learning_rat: unknown setting\. Did you mean 'learning_rate'\?"):
        load_config(path)


def test_an_unknown_key_that_resembles_nothing_is_answered_with_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match=r"lora\.zzz: unknown setting\. Known here: method, rank, alpha"):
        load_config(write(tmp_path, "lora: {zzz: 1}\n"))


def test_all_problems_are_listed_at_once_and_only_those(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, "nam: x\nlora: {rank: 0}\n"))
    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == 2  # alpha's default follows from the rank; it is not a third problem
    assert any(line.startswith("  nam: unknown setting. Did you mean 'name'?") for line in lines)
    assert any(line.startswith("  lora.rank: ") and "found 0" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "message"), [("- a\n- b\n", "settings by name"), ("a: [1\n", "not valid YAML"), ("name: A b\n", "name: ")]
)
def test_what_is_no_configuration_is_refused_with_the_file_named(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_one_message(tmp_path):
    with pytest.raises(ConfigError, match="no configuration file"):
        load_config(tmp_path / "absent.yaml")


def test_relative_sources_are_relative_to_the_file(tmp_path):
    path = write(tmp_path, "data: {sources: [images, /absolute, 'hf:owner/name']}\n")
    assert load_config(path).data.sources == (str(tmp_path / "images"), "/absolute", "hf:owner/name")
    assert load_file(path, PretrainPlan).data.sources[0] == str(tmp_path / "images")


def test_a_dumped_configuration_loads_as_itself():
    config = PipelineConfig.model_validate({"name": "x", "lora": {"rank": 3}, "training": {"preset": "small"}})
    assert PipelineConfig.model_validate_json(config.model_dump_json()) == config


def test_the_digest_follows_the_settings_but_not_where_the_images_came_from():
    plain, moved, other = (
        ResolvedConfig.model_validate({"lora": filled_lora(), "training": filled_training(), **settings})
        for settings in ({}, {"data": {"sources": ["/elsewhere"]}}, {"lora": filled_lora(rank=3)})
    )
    assert plain.digest() == moved.digest() != other.digest()
