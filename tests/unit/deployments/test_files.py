"""The files under `deployments/` are what they claim to be."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sdlora.config import PipelineConfig, load_config, load_file
from sdlora.pretraining.config import PretrainPlan

DEPLOYMENTS = Path(__file__).parents[3] / "deployments"
CONFIGS = sorted((DEPLOYMENTS / "configs").rglob("*.yaml"))
PLANS = sorted((DEPLOYMENTS / "pretraining").rglob("*.yaml"))
PREFECT = yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text())


def test_there_are_configurations():
    assert {"demo.yaml", "minimal.yaml"} <= {path.name for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_configuration_loads(path):
    assert isinstance(load_config(path), PipelineConfig)


def test_there_are_pretraining_plans():
    assert "embedded-base.yaml" in {path.name for path in PLANS}


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.name)
def test_every_pretraining_plan_loads(path):
    assert isinstance(load_file(path, PretrainPlan), PretrainPlan)


def test_the_demo_learns_from_images_that_are_there():
    sources = load_config(DEPLOYMENTS / "configs" / "demo.yaml").data.sources
    assert sources
    assert all(any(Path(source).glob("*.png")) for source in sources)


@pytest.mark.parametrize("deployment", PREFECT["deployments"], ids=lambda deployment: deployment["name"])
def test_every_entrypoint_is_a_flow_whose_parameters_it_names(deployment):
    from prefect import Flow
    from prefect.utilities.importtools import import_object

    flow = import_object(str(DEPLOYMENTS.parent / deployment["entrypoint"]))
    assert isinstance(flow, Flow)
    assert deployment.get("parameters", {}).keys() <= flow.parameters.properties.keys()


def test_the_form_of_retrain_has_ten_parameters_at_most_each_with_a_line_of_explanation():
    from flows.retrain import retrain
    from tasks.form import STYLE

    form = retrain.parameters.properties
    assert form.keys() == {*STYLE.flat, "force", "advanced"}
    assert len(form) <= 10
    assert all(field["description"] for field in form.values())
    assert [form[name]["type"] for name in ("steps", "learning_rate", "rank")] == ["integer", "number", "integer"]
    assert form["advanced"]["propertyNames"]["enum"] == list(STYLE.sections)
    assert set(STYLE.sections) | {"name"} == set(PipelineConfig.model_fields)
