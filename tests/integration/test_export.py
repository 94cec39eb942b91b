"""The setting `export.on_promote` in the loop: the champion's file follows the champion."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.cli.run_output import release_object
from deployments.doctor import diagnose
from deployments.styles.watermark import remember, unchanged_release
from flows.retrain import retrain
from sdlora.config import PipelineConfig, load_config
from sdlora.core.tensor_header import read_header
from sdlora.release.config import ExportConfig
from tasks.tracking import Registry
from tests.prefect_records import artifacts_of, newest_run
from tests.settings import run_flow


@pytest.fixture(scope="module")
def exporting(config: PipelineConfig, home: Path, tmp_path_factory) -> tuple[PipelineConfig, Path]:
    """A style whose first version a person made the champion, and a folder that does not exist yet."""
    loras = tmp_path_factory.mktemp("comfyui") / "loras"
    config = config.model_copy(update={"name": "exporting", "export": ExportConfig(on_promote=str(loras))})
    assert run_flow(retrain, config, home).export is None  # refused by the gate: there is no champion
    Registry(home).client.set_registered_model_alias("exporting", "champion", "1")
    return config, loras


def finding(home):
    return next(finding for finding in diagnose(home) if finding.subject == "exports")


def test_a_missing_folder_is_a_warning_and_the_next_run_tries_again(exporting, home):
    config, loras = exporting
    release = run_flow(retrain, config, home)
    assert (release.version, release.export.version) == (1, 1)
    assert release.export.problem.startswith(f"export.on_promote: {loras} does not exist.")
    assert release_object(release, 1.0)["export_problem"] == release.export.problem
    newest = newest_run()
    assert newest.state.is_completed()
    page = artifacts_of(newest.id)["export"]
    assert "loras does not exist" in page.data
    assert finding(home).level == "problem"
    assert f"exporting: export.on_promote: {loras} does not exist" in finding(home).text
    remember(config, home, release)
    assert unchanged_release(config, home) is None

    loras.mkdir()
    again = run_flow(retrain, config, home)
    assert (again.new, again.export.problem, again.export.file) == (False, None, loras / "exporting.safetensors")
    assert release_object(again, 1.0)["exported_to"] == loras / "exporting.safetensors"
    metadata = read_header(loras / "exporting.safetensors").metadata
    adapter_digest = Registry(home).get("exporting", 1).tags["adapter_digest"]
    assert (metadata["sdlora.version"], metadata["sdlora.adapter_digest"]) == ("1", adapter_digest)
    assert finding(home).level == "good"
    remember(config, home, again)
    assert unchanged_release(config, home).version == 1
    (loras / "exporting.safetensors").unlink()
    assert unchanged_release(config, home) is None
    assert finding(home).level == "problem"


def test_the_file_follows_a_champion_that_a_person_has_chosen(exporting, later_images, home):
    config, loras = exporting
    loras.mkdir(exist_ok=True)
    run_flow(retrain, config, home)
    sources = (*config.data.sources, str(later_images))
    more = config.model_copy(update={"data": config.data.model_copy(update={"sources": sources})})
    refused = run_flow(retrain, more, home)
    assert (refused.version, refused.promoted, refused.export.version) == (2, False, 1)
    before = (loras / "exporting.safetensors").read_bytes()
    Registry(home).client.set_registered_model_alias("exporting", "champion", "2")
    chosen = run_flow(retrain, more, home)
    assert (chosen.new, chosen.export.version, chosen.export.problem) == (False, 2, None)
    assert read_header(loras / "exporting.safetensors").metadata["sdlora.version"] == "2"
    assert (loras / "exporting.previous").read_bytes() == before


def test_the_folder_is_in_no_evidence_and_names_no_run(exporting, home):
    config, loras = exporting
    run = run_flow(retrain, config, home)
    for root in (run.run.folder, home / "mlflow"):
        assert not [p for p in root.rglob("*") if p.is_file() and str(loras).encode() in p.read_bytes()]
    elsewhere = config.model_copy(update={"export": ExportConfig()})
    without = run_flow(retrain, elsewhere, home)
    assert (without.run, without.new, without.export) == (run.run, False, None)
    assert "exporting" not in finding(home).text


def test_a_folder_in_a_file_is_relative_to_the_file(tmp_path):
    (tmp_path / "style.yaml").write_text("export: {on_promote: ../ComfyUI/models/loras, dtype: fp16}")
    config = load_config(tmp_path / "style.yaml")
    assert config.export.on_promote == str(tmp_path.parent / "ComfyUI" / "models" / "loras")
