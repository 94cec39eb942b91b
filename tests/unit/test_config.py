from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.cli.app import app
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
        ResolvedConfig.model_validate(
            {"data": {"dataset": "here"}, "lora": filled_lora(), "training": filled_training(), **settings}
        )
        for settings in (
            {},
            {"data": {"dataset": "there", "sources": ["/elsewhere"], "mirror_sources": True}},
            {"lora": filled_lora(rank=3)},
        )
    )
    assert plain.digest() == moved.digest() != other.digest()


HURTFUL = [
    ("name: " + "x" * 300, "name", "String should have at most 96 characters; found 'xxx"),
    ('name: "a\\0b"', "name", r"String should match pattern .*; found 'a\\x00b'"),
    ('data: {sources: ["a\\0b"]}', "data.sources", "without the character NUL"),
    ('base_model: {source: "a\\0b"}', "base_model.source", "without the character NUL"),
    ("base_model: {source: " + "x" * 9000 + "}", "base_model.source", "at most 8192 characters is expected"),
    ("training: {learning_rate: .inf}", "training.learning_rate", "finite number; found inf"),
    ("training: {learning_rate: .nan}", "training.learning_rate", "finite number; found nan"),
    ("training: {learning_rate: 1e999}", "training.learning_rate", "finite number"),
    ("gate: {max_time_factor: .inf}", "gate.max_time_factor", "finite number; found inf"),
    ("training: {steps: 99999999999999999999}", "training.steps", "less than or equal to 10000000; found 9999999"),
    ("lora: {rank: 1000000}", "lora.rank", "less than or equal to 16384; found 1000000"),
    ("training: {resolutions: [-64]}", "training.resolutions.0", "greater than or equal to 8; found -64"),
    ("training: {steps: " + "9" * 5000 + "}", "line 1", "a number of 5000 characters; expected at most 64"),
    ("training: {steps: " + "[" * 3000 + "]" * 3000 + "}", "line 1", "more than 32 levels of nesting"),
    ("training: {steps: 5}\nname: x\ntraining: {rank: 2}\n", "line 3", "'training' is given twice, first on line 1"),
    ("\n".join(f"key{i}: 1" for i in range(500)), "key0", "and 480 more"),
    ("schedule: {window: 7-9}", "schedule.window", ": two times of a day are expected"),
    ('"\\e[31mred": 1', r"\\x1b\[31mred", "unknown setting"),
]


@pytest.mark.parametrize(("text", "where", "message"), HURTFUL, ids=[where for _, where, _ in HURTFUL])
@pytest.mark.parametrize("option", [(), ("--show-config",)], ids=["run", "show"])
def test_a_hurtful_setting_is_one_short_message_before_anything_starts(tmp_path, text, where, message, option):
    path = write(tmp_path, text)
    arguments = ["run", "--config", str(path), "--home", str(tmp_path / "home"), *option]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 1
    assert outcome.stderr.startswith(f"Error: {path}")
    assert re.search(f"{where}.*{message}", outcome.stderr, re.DOTALL), outcome.stderr
    assert len(outcome.stderr) < 8000 and outcome.stderr.replace("\n", "").isprintable()
    assert "not an error of yours" not in outcome.stderr
    assert not (tmp_path / "home").exists()


def test_every_number_of_a_file_has_both_bounds():
    seen = 0
    for model in (PipelineConfig, PretrainPlan):
        nodes = [model.model_json_schema()]
        while nodes:
            node = nodes.pop()
            if isinstance(node, dict):
                if node.get("type") in ("integer", "number"):
                    seen += 1
                    assert {"minimum", "exclusiveMinimum"} & node.keys() and {
                        "maximum",
                        "exclusiveMaximum",
                    } & node.keys(), node
                nodes += node.values()
            elif isinstance(node, list):
                nodes += node
    assert seen > 100


@pytest.mark.parametrize("content", [b"\xff\xfe", b"# " + b"x" * 2**20])
def test_a_file_that_is_no_text_or_too_long_is_one_message(tmp_path, content):
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"settings\.yaml (cannot be read|is not valid YAML: longer than)"):
        load_config(path)


@pytest.mark.parametrize("path", [Path("/dev/zero"), Path("a\0b"), Path("x" * 300), Path("/")])
def test_a_path_that_is_no_file_is_one_message(path):
    with pytest.raises(ConfigError, match=r"configuration file|not valid YAML"):
        load_config(path)


@pytest.mark.parametrize("text", ["false", "0", "[]", "''"])
def test_a_file_of_another_value_is_not_taken_for_an_empty_one(tmp_path, text):
    with pytest.raises(ConfigError, match="must hold settings by name"):
        load_config(write(tmp_path, text))


def test_a_flag_fills_a_section_that_the_file_leaves_empty(tmp_path):
    assert load_config(write(tmp_path, "training:\n"), {"training.steps": 5}).training.steps == 5


@pytest.mark.parametrize("source", ["~nobody-of-this-name/images", "x" * 5000, "a/" * 3000])
def test_a_source_that_is_no_path_waits_for_collecting_to_say_so(tmp_path, source):
    assert load_config(write(tmp_path, f"data: {{sources: [{source}]}}")).data.sources[0].endswith(source.rstrip("/"))


def test_the_name_of_an_unknown_setting_is_escaped_and_shortened(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, '"\\e[31m' + "x" * 5000 + '": 1'))
    assert str(caught.value).replace("\n", "").isprintable()
    assert len(str(caught.value)) < 1000
