from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prefect.utilities.callables import parameter_schema

from flows.retrain import retrain
from sdlora.config import PipelineConfig, load_config, load_file
from sdlora.core.errors import ConfigError
from sdlora.models.config import BaseModelConfig
from sdlora.pretraining.config import PretrainPlan
from tasks.form import PLAN, STYLE
from tests.tiny import tiny_base_model


def of_file(folder: Path, settings: dict[str, object]) -> PipelineConfig:
    (folder / "style.yaml").write_text(yaml.safe_dump(settings))
    return load_config(folder / "style.yaml")


def back(parameters: dict[str, object]) -> PipelineConfig:
    flat = {name: value for name, value in parameters.items() if name != "advanced"}
    return STYLE.config(parameters.get("advanced", {}), **flat)


def test_a_file_of_two_lines_becomes_two_parameters(tmp_path: Path) -> None:
    config = of_file(tmp_path, {"name": "mine", "data": {"sources": ["images"]}})
    assert STYLE.parameters(config) == {"name": "mine", "sources": [str(tmp_path / "images")]}


def test_a_file_becomes_flat_parameters_and_the_rest_under_its_own_names(tmp_path: Path) -> None:
    settings = {
        "name": "mine",
        "base_model": {"source": "embedded", "quantize": "nf4"},
        "training": {"steps": 40, "batch_size": 2, "warmup_steps": None},
        "gate": {"max_time_factor": None},
        "lora": {},
    }
    assert STYLE.parameters(of_file(tmp_path, settings)) == {
        "name": "mine",
        "base_model": "embedded",
        "steps": 40,
        "advanced": {
            "base_model": {"quantize": "nf4"},
            "training": {"batch_size": 2},
            "gate": {"max_time_factor": None},
        },
    }


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.from_regex(r"[a-z0-9][a-z0-9-]{0,8}", fullmatch=True),
        "data": st.fixed_dictionaries({}, optional={"min_side_px": st.none() | st.integers(1, 99)}),
        "training": st.fixed_dictionaries(
            {},
            optional={
                "preset": st.sampled_from(["small", "thorough"]),
                "steps": st.none() | st.integers(1, 9),
                "learning_rate": st.none() | st.floats(1e-6, 1),
                "min_snr_gamma": st.none() | st.just(0),
                "resolutions": st.just([]) | st.just([64, 32]),
            },
        ),
        "lora": st.none() | st.fixed_dictionaries({}, optional={"rank": st.none() | st.integers(1, 64)}),
        "gate": st.fixed_dictionaries({}, optional={"max_time_factor": st.none() | st.floats(1, 3)}),
    },
)


@given(SETTINGS)
def test_parameters_mean_what_the_file_says_whatever_it_leaves_empty(tmp_path_factory, settings) -> None:
    folder = tmp_path_factory.mktemp("style")
    config = of_file(folder, settings)
    again = back(STYLE.parameters(config))
    assert again == config
    assert STYLE.parameters(again) == STYLE.parameters(config)
    written = {key for section in settings.values() if isinstance(section, dict) for key in section}
    told = STYLE.parameters(config)
    said = told.keys() | {key for section in told.get("advanced", {}).values() for key in section}
    assert said <= written | {"name", "advanced"}


@pytest.mark.parametrize(
    ("advanced", "flat", "message"),
    [
        ({"trainin": {}}, {}, r"advanced: 'trainin' is no section\. Known: data, base_model"),
        ({"training": 3}, {}, r"advanced\.training: expected settings by name, found 3"),
        ({"training": {"steps": 3}}, {"steps": 4}, r"advanced\.training\.steps: 3 is given, and steps: 4 too"),
        ({"training": {"stepz": 3}}, {}, r"training\.stepz: unknown setting\. Did you mean 'steps'"),
        ({}, {"steps": 0}, r"training\.steps: .* found 0"),
        ({}, {"name": "My Style"}, r"name: .* found 'My Style'"),
    ],
)
def test_wrong_parameters_are_refused_in_our_words(advanced, flat, message) -> None:
    with pytest.raises(ConfigError, match=message):
        STYLE.config(advanced, **flat)


def test_paths_of_a_file_are_those_beside_it_wherever_the_run_works(tmp_path, monkeypatch) -> None:
    base = tiny_base_model(tmp_path / "styles" / "base")
    monkeypatch.chdir(tmp_path)
    settings = {"data": {"sources": ["../images"]}, "base_model": {"source": "./base"}}
    config = of_file(tmp_path / "styles", settings)
    assert config.base_model.source == str(base)
    assert config.data.sources == (str(tmp_path / "images"),)
    hub = of_file(tmp_path / "styles", {"base_model": {"source": "owner/name", "revision": "0" * 40}})
    assert hub.base_model == BaseModelConfig(source="owner/name", revision="0" * 40)


def test_a_pretraining_plan_becomes_parameters_too(tmp_path) -> None:
    (tmp_path / "plan.yaml").write_text("data: {sources: [images]}\nmodel: {unet: {steps: 7}}\nprocesses: 2\n")
    plan = load_file(tmp_path / "plan.yaml", PretrainPlan)
    parameters = PLAN.parameters(plan)
    assert parameters == {
        "sources": [str(tmp_path / "images")],
        "processes": 2,
        "advanced": {"model": {"unet": {"steps": 7}}},
    }
    advanced = parameters.pop("advanced")
    assert PLAN.config(advanced, **parameters) == plan
    assert plan.data.held_out_fraction == 0.05


DEEP: list[object] = []
for _ in range(3000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("advanced", "flat", "message"),
    [
        ({}, {"name": "x" * 300}, "name: String should have at most 96 characters"),
        ({}, {"sources": ["a\0b"]}, "data.sources: .*without the character NUL"),
        ({}, {"steps": 99999999999999999999}, "training.steps: .*less than or equal to 10000000"),
        ({}, {"steps": 10**5000}, "training.steps: .*; found a number of about 5001 digits"),
        ({}, {"learning_rate": float("inf")}, "training.learning_rate: .*finite number; found inf"),
        ({}, {"learning_rate": float("nan")}, "training.learning_rate: .*finite number; found nan"),
        ({"training": {"weight_decay": float("inf")}}, {}, "training.weight_decay: .*finite number"),
        ({"training": {"batch_size": DEEP}}, {}, "more than 32 levels of nesting"),
        ({"gate": DEEP}, {}, "advanced.gate: expected settings by name"),
        ({"\x1b[31m" * 999: {}}, {}, "is no section"),
        ({"base_model": {"source": "x" * 9000}}, {}, "base_model.source: .*at most 8192 characters"),
    ],
)
def test_a_hurtful_parameter_is_one_short_message(advanced, flat, message) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        STYLE.config(advanced, **flat)
    assert len(str(caught.value)) < 2000
    assert str(caught.value).replace("\n", "").isprintable()


def test_the_server_refuses_before_queueing_what_the_file_may_not_hold() -> None:
    schema = parameter_schema(retrain).model_dump()["properties"]
    assert schema["name"]["maxLength"] == 96
    assert schema["steps"]["maximum"] == schema["rank"]["maximum"] == 10_000_000
    assert schema["learning_rate"]["maximum"] == 10
