"""Weights that MLflow stores for versions: their size, removal and return, and models that no version refers to."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from sdlora.retention.state import StoredModel
from tasks.tracking.artifacts import delete_artifacts
from tasks.tracking.registry import Registry
from tasks.tracking.versions import ADAPTER_FOLDER, FILES_REMOVED, AdapterVersion

_SUFFIX = ".safetensors"
_MODEL_NAME = "adapter"
_ABANDONED_SECONDS = 86_400.0
"""Age of a model on a server whose publishing was killed; another state folder may be publishing there."""


def stored_weights(registry: Registry, version: AdapterVersion) -> dict[str, int]:
    """Return the sizes of a version's weights in MLflow, by path among the model's files; empty after a removal."""
    repository = get_artifact_repository(
        _model(registry, version).artifact_location, tracking_uri=registry.client.tracking_uri
    )
    files = repository.list_artifacts(ADAPTER_FOLDER)
    return {file.path: file.file_size or 0 for file in files if file.path.endswith(_SUFFIX)}


def remove_weights(registry: Registry, version: AdapterVersion, note: str) -> None:
    """Note on the version that its weights are removed, and delete them; report, scores and pictures stay."""
    registry.note(version, {FILES_REMOVED: note})
    registry.extend_description(version, f"**Weights:** {note}.")
    repository = get_artifact_repository(
        _model(registry, version).artifact_location, tracking_uri=registry.client.tracking_uri
    )
    for path in stored_weights(registry, version):
        repository.delete_artifacts(path)


def return_weights(registry: Registry, version: AdapterVersion, adapter: Path) -> None:
    """Store the weights of a version again, from the folder of an adapter that was trained again."""
    repository = get_artifact_repository(
        _model(registry, version).artifact_location, tracking_uri=registry.client.tracking_uri
    )
    for path in sorted(adapter.glob(f"*{_SUFFIX}")):
        repository.log_artifact(str(path), ADAPTER_FOLDER)
    registry.note(version, {FILES_REMOVED: ""})


def unreferenced_models(registry: Registry, styles: Sequence[str]) -> list[StoredModel]:
    """List the models that no version refers to: what is left of a killed publishing, or of a deleted version.

    Call this only while nothing publishes from this state folder. A server in MLFLOW_TRACKING_URI has models of other
    people too, so only those count whose run has the digest of a run of sdlora, in an experiment of a style of this
    state folder.
    """
    client = registry.client
    is_shared = not client.tracking_uri.startswith("sqlite:")
    experiments = [each.experiment_id for name in styles if (each := client.get_experiment_by_name(name))]
    found = []
    for model in _models(client, experiments) if experiments else ():
        is_young = time.time() - model.creation_timestamp / 1000 < _ABANDONED_SECONDS
        if is_shared and (is_young or not _is_ours(client, model)):
            continue
        if client.search_model_versions(f"source_path = 'models:/{model.model_id}'"):
            continue
        found.append(StoredModel(model.model_id, _size(client, model)))
    return found


def _models(client: MlflowClient, experiments: list[str]) -> Iterator[LoggedModel]:
    token = None
    while True:
        page = client.search_logged_models(experiments, f"name = '{_MODEL_NAME}'", page_token=token)
        yield from page
        if not (token := page.token):
            return


def _is_ours(client: MlflowClient, model: LoggedModel) -> bool:
    return model.source_run_id is not None and "run_digest" in client.get_run(model.source_run_id).data.tags


def delete_model(registry: Registry, model_id: str) -> None:
    """Delete a model with its files."""
    model = registry.client.get_logged_model(model_id)
    delete_artifacts(model.artifact_location, registry.client.tracking_uri)
    registry.client.delete_logged_model(model_id)


def _model(registry: Registry, version: AdapterVersion) -> LoggedModel:
    return registry.client.get_logged_model(version.source.rpartition("/")[2])


def _size(client: MlflowClient, model: LoggedModel) -> int:
    repository = get_artifact_repository(model.artifact_location, tracking_uri=client.tracking_uri)
    return sum(file.file_size or 0 for file in repository.list_artifacts(ADAPTER_FOLDER))
