"""Artifacts of a state folder by addresses without the folder's path, so that the folder can be moved or copied.

MLflow stores the address of each experiment, run and model as a whole. `mlflow-artifacts:/style/...` is MLflow's own
relative scheme: a server resolves it against its folder of artifacts. `sdlora up` runs such a server. In a process that
opens the database file itself, MLflow has no root for the scheme. Here the root is the folder `artifacts` next to the
database file.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import (
    _artifact_repository_registry,
    get_artifact_repository,
)
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository
from mlflow.tracking._tracking_service import utils
from sqlalchemy.engine import make_url

SCHEME = "mlflow-artifacts"
FOLDER = "artifacts"


def artifact_address(name: str) -> str:
    """Return the address of an experiment's artifacts, relative to the state folder."""
    return f"{SCHEME}:/{name}"


def resolve_without_server() -> None:
    """Let MLflow resolve relative addresses in this process, see `artifact_repository`."""
    _artifact_repository_registry.register(SCHEME, artifact_repository)


def forget_resolved() -> None:
    """Forget resolved addresses. MLflow remembers them by run, and a copied folder has runs of the same names."""
    utils._artifact_repos_cache.clear()


def artifact_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> ArtifactRepository:
    """Open a relative address: files next to the database file, or through the tracking server.

    Raises:
        MlflowException: the address leads out of the folder.
    """
    tracking_uri = tracking_uri or mlflow.get_tracking_uri()
    if not tracking_uri.startswith("sqlite:"):
        return MlflowArtifactsRepository(artifact_uri, tracking_uri=tracking_uri, registry_uri=registry_uri)
    root = Path(make_url(tracking_uri).database or "").resolve().parent / FOLDER
    folder = Path(os.path.normpath(root / urlsplit(artifact_uri).path.lstrip("/")))
    if not folder.is_relative_to(root):
        raise MlflowException.invalid_parameter_value(f"The address {artifact_uri} leads out of {root}.")
    return LocalArtifactRepository(folder.as_uri(), tracking_uri=tracking_uri, registry_uri=registry_uri)


def local_folder(address: str, tracking_uri: str) -> Path | None:
    """Return the folder of files at an address; None if the files are on a server."""
    repository = get_artifact_repository(address, tracking_uri=tracking_uri)
    return Path(repository.artifact_dir) if isinstance(repository, LocalArtifactRepository) else None


def delete_artifacts(address: str, tracking_uri: str) -> None:
    """Delete all files at the address of a run or model; files that are gone already are no error."""
    get_artifact_repository(address, tracking_uri=tracking_uri).delete_artifacts()
