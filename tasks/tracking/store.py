"""MLflow's tracking store: the server of `MLFLOW_TRACKING_URI`, else SQLite in the state folder."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import mlflow
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException

from tasks.private import private_folder
from tasks.tracking.artifacts import artifact_address, forget_resolved, resolve_without_server
from tasks.tracking.links import absolute_url, browser_address, version_route

TRACKING_URI = "MLFLOW_TRACKING_URI"
PAGE_SERVER = "SDLORA_MLFLOW_PAGES"
"""Address of an MLflow server that shows the records of the state folder, for links. Runs write to the file."""


def tracking_uri(home: Path) -> str:
    """Return `MLFLOW_TRACKING_URI` if it is set, else the URI of the SQLite file `home/mlflow/mlflow.db`."""
    return os.environ.get(TRACKING_URI) or _uri_of_file(home)


def has_records(home: Path) -> bool:
    """Return True if records may exist. A server in `MLFLOW_TRACKING_URI` is not asked."""
    return TRACKING_URI in os.environ or (home / "mlflow" / "mlflow.db").is_file()


def open_store(home: Path) -> mlflow.MlflowClient:
    """Select the store of `home` for MLflow in this process, and return a client of the store."""
    uri = tracking_uri(home)
    if uri.startswith("sqlite:"):
        private_folder(home / "mlflow")
    uri_of_environment = os.environ.get(TRACKING_URI)
    resolve_without_server()
    if mlflow.get_tracking_uri() != uri:
        forget_resolved()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    # MLflow writes the address into the environment. There it would count as the user's setting and override the
    # next state folder that this process opens.
    if uri_of_environment is None:
        os.environ.pop(TRACKING_URI, None)
    return mlflow.MlflowClient(uri, uri)


def _uri_of_file(home: Path) -> str:
    return f"sqlite:///{(home / 'mlflow' / 'mlflow.db').resolve()}"


def page_server(client: mlflow.MlflowClient) -> str | None:
    """Return the address for browsers: the tracking server, else the server that shows the file's records."""
    return browser_address(client.tracking_uri) or os.environ.get(PAGE_SERVER)


def version_page(style: str, number: int) -> str | None:
    """Return the URL of a version's page; None without a server. Asks no server."""
    server = browser_address(os.environ.get(TRACKING_URI, "")) or os.environ.get(PAGE_SERVER)
    return absolute_url(server, version_route(style, number))


def get_or_create_experiment(client: mlflow.MlflowClient, name: str, home: Path) -> Experiment:
    """Return the experiment `name`, and create it at the first call."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        location = None  # a server has its own
        if client.tracking_uri == _uri_of_file(home):
            location = artifact_address(name)
        elif client.tracking_uri.startswith("sqlite:"):
            # Without a location, MLflow on SQLite writes artifacts below the current folder.
            location = (home / "mlflow" / "artifacts" / name).resolve().as_uri()
        with suppress(MlflowException):  # another process created it, or it was deleted in the UI: checked below
            client.create_experiment(name, artifact_location=location)
        experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage == "deleted":
        raise RuntimeError(f"The MLflow experiment {name!r} was deleted; restore it there, or give the run a new name.")
    return experiment
