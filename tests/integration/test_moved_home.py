"""A state folder that is moved works at its new place; one that is copied never touches the original."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from deployments.servers.credentials import Credentials, credentials_of
from deployments.servers.mlflow_server import MlflowServer
from deployments.servers.services import Service, listen_at
from flows.retrain import retrain
from sdlora.config import PipelineConfig
from sdlora.lora.load import open_adapter
from sdlora.store.champions import champion_history
from sdlora.store.image_store import ImageStore
from tasks.drawing import Drawing, draw, find_model
from tasks.tracking import Registry
from tests.settings import run_flow
from tests.stack import PROJECT, clean_environment, request

DOWNLOAD = "import mlflow, sys; print(open(mlflow.artifacts.download_artifacts(sys.argv[1])).read())"


def tree(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def with_steps(config: PipelineConfig, steps: int) -> PipelineConfig:
    return config.model_copy(update={"training": config.training.model_copy(update={"steps": steps})})


def own(config: PipelineConfig, home: Path) -> PipelineConfig:
    """The style on the base model in the state folder."""
    source = str(home / "bases" / "mine" / "model")
    return config.model_copy(update={"base_model": config.base_model.model_copy(update={"source": source})})


def works(home: Path, number: int, out: Path) -> None:
    """Draw with a version whose weights are only in MLflow's store, as after a clean-up of `runs/`."""
    shutil.rmtree(home / "runs", ignore_errors=True)
    shutil.rmtree(home / "cache" / "adapters", ignore_errors=True)
    model = find_model(str(number), "shapes", home)
    assert model.adapter.folder.is_relative_to(home)
    assert open_adapter(model.adapter.folder).digest == model.adapter.digest
    (picture,) = draw(model, Drawing("a red circle", steps=1), out, home)
    assert picture.path.stat().st_size > 100


@pytest.fixture(scope="module")
def original(config: PipelineConfig, base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with a version, whose base model is in the folder, too, as those of `sdlora pretrain`."""
    home = tmp_path_factory.mktemp("original") / "home"
    shutil.copytree(base_folder, home / "bases" / "mine" / "model")
    run_flow(retrain, own(config, home), home)
    return home


@pytest.fixture(scope="module")
def copy(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(original, tmp_path_factory.mktemp("copy") / "a copy of home"))


@pytest.fixture(scope="module")
def moved(original: Path, copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.move(original, tmp_path_factory.mktemp("moved") / "näher dran"))


@pytest.fixture(scope="module")
def mlflow_page(moved: Path) -> Iterator[tuple[Service, str, Credentials]]:
    """The MLflow server of `sdlora up` on the moved folder, its address and its password."""
    with listen_at(0, "MLflow server", "--mlflow-port") as listener:
        port, credentials = listener.getsockname()[1], credentials_of(moved)
        server = MlflowServer(moved, port, credentials)
        log = moved / "logs" / "mlflow.log"
        service = Service("The MLflow server", server.command(), server.environment(), log, PROJECT, listener)
        yield service, f"http://127.0.0.1:{port}", credentials
        service.stop()


def test_no_record_of_mlflow_leads_to_the_folder(original):
    """Every text of every table; the typed settings may name what they like."""
    with closing(sqlite3.connect(original / "mlflow" / "mlflow.db")) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        texts = {table: str(database.execute(f"SELECT * FROM {table}").fetchall()) for table in tables}
    assert "mlflow-artifacts:/shapes/" in texts["runs"]
    named = {table for table, text in texts.items() if str(original) in text}
    assert named == {"params", "logged_model_params"}


def test_what_is_written_with_a_copy_stays_in_the_copy(original, copy, config):
    before = tree(original)
    release = run_flow(retrain, with_steps(own(config, copy), 4), copy)
    assert (release.version, release.new) == (2, True)
    run_flow(retrain, own(config, copy), copy, force=True)
    works(copy, 1, copy / "generated")
    assert tree(original) == before


def test_a_copy_works_when_the_original_is_gone(moved, original, copy):
    assert not original.exists()
    works(copy, 2, copy / "generated")
    assert not original.exists()


def test_a_moved_folder_works_at_its_new_place(mlflow_page, moved, original, config):
    with ImageStore.open(moved) as store, store.read() as session:
        assert champion_history(session, "shapes").length == 1
    assert run_flow(retrain, own(config, moved), moved).new is False
    release = run_flow(retrain, with_steps(own(config, moved), 5), moved)
    assert (release.version, release.new) == (2, True)
    works(moved, 2, moved / "generated")
    assert not original.exists()


def test_its_mlflow_page_shows_pictures_and_any_mlflow_client_reads_through_it(mlflow_page, moved):
    service, address, credentials = mlflow_page
    service.wait_ready(f"{address}/health")
    header = {"Authorization": "Basic " + base64.b64encode(credentials.login.encode()).decode()}
    for version in Registry(moved).versions("shapes"):
        for path in ("images%2Fsummary.png", "report.html"):
            url = f"{address}/get-artifact?path={path}&run_uuid={version.run_id}"
            assert request(url, header)[0] == 200
    client = [sys.executable, "-c", DOWNLOAD, f"runs:/{version.run_id}/config.json"]
    environment = clean_environment() | {
        "MLFLOW_TRACKING_URI": address,
        "MLFLOW_TRACKING_USERNAME": credentials.user,
        "MLFLOW_TRACKING_PASSWORD": credentials.password,
    }
    done = subprocess.run(client, env=environment, cwd=os.sep, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"base_model"' in done.stdout
