"""The files under `deployments/` are what they claim to be."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sdlora.config import PipelineConfig, load_config

DEPLOYMENTS = Path(__file__).parents[3] / "deployments"
CONFIGS = sorted((DEPLOYMENTS / "configs").rglob("*.yaml"))
PREFECT = yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text())


def is_pretraining(path: Path) -> bool:
    return path.name.startswith("pretrain")


def test_there_are_configurations():
    assert {"demo.yaml", "minimal.yaml"} <= {path.name for path in CONFIGS}


@pytest.mark.parametrize("path", [path for path in CONFIGS if not is_pretraining(path)], ids=lambda path: path.name)
def test_every_configuration_loads(path):
    assert isinstance(load_config(path), PipelineConfig)


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
    assert deployment["parameters"].keys() <= flow.parameters.properties.keys()


def test_the_form_explains_every_setting():
    from flows.retrain import retrain

    schema = retrain.parameters.model_dump()
    for section, definition in schema["definitions"].items():
        for name, field in definition.get("properties", {}).items():
            assert field.get("description") or "enum" in field or _is_plain(name, section), f"{section}.{name}"


def _is_plain(name: str, section: str) -> bool:
    """Settings whose name says all; everything else explains itself in the form."""
    return name in {"batch_size", "seed", "steps", "max_denoising_psnr_drop_db", "max_denoising_ssim_drop", "negative_prompt"}
