"""Relative addresses of artifacts are files next to the database, or the server's."""

from __future__ import annotations

import shutil

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

from tasks.tracking.artifacts import artifact_address, artifact_repository
from tasks.tracking.store import get_or_create_experiment, open_store


def test_in_a_process_with_the_database_they_are_files_next_to_it(tmp_path):
    for home in (tmp_path / "a home", tmp_path / "näher"):
        address = f"{artifact_address('shapes')}/run/artifacts"
        repository = artifact_repository(address, tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
        (tmp_path / "note.txt").write_text(home.name)
        repository.log_artifact(str(tmp_path / "note.txt"), "pages")
        assert (home / "artifacts/shapes/run/artifacts/pages/note.txt").read_text() == home.name
        assert [item.path for item in repository.list_artifacts("pages")] == ["pages/note.txt"]


def test_they_never_lead_out_of_the_folder(tmp_path):
    for path in ("../elsewhere", "a/../../elsewhere"):
        with pytest.raises(MlflowException, match="leads out of"):
            artifact_repository(f"mlflow-artifacts:/{path}", tracking_uri=f"sqlite:///{tmp_path}/home/mlflow.db")


def test_with_a_server_they_are_the_servers(tmp_path):
    repository = artifact_repository("mlflow-artifacts:/shapes/run", tracking_uri="http://127.0.0.1:9")
    assert type(repository) is MlflowArtifactsRepository
    assert repository.artifact_uri == "http://127.0.0.1:9/api/2.0/mlflow-artifacts/artifacts/shapes/run"


def test_a_client_of_two_folders_with_equal_runs_confuses_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    first = open_store(tmp_path / "first")
    run = first.create_run(get_or_create_experiment(first, "shapes", tmp_path / "first").experiment_id)
    first.log_text(run.info.run_id, "first", "note.txt")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    second = open_store(tmp_path / "second")
    second.log_text(run.info.run_id, "second", "note.txt")
    for home in ("first", "second"):
        (note,) = (tmp_path / home).rglob("note.txt")
        assert note.read_text() == home
    assert run.info.artifact_uri == f"mlflow-artifacts:/shapes/{run.info.run_id}/artifacts"
