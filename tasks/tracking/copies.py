"""Copies of adapters and lists of images in MLflow, for the check of all digests."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from pydantic import TypeAdapter

from sdlora.data.snapshot import SnapshotRow
from sdlora.integrity.adapters import RUN_DIGITS, AdapterFolder
from sdlora.integrity.verify import Registered
from tasks.tracking.artifacts import local_folder
from tasks.tracking.registry import Registry
from tasks.tracking.run import SNAPSHOT_FILE
from tasks.tracking.versions import ADAPTER_FOLDER, AdapterVersion


@contextmanager
def registered_copies(home: Path) -> Iterator[Registered]:
    """Provide the adapters of all registered versions, and the logged lists of images.

    Versions on a server are downloaded to a temporary folder; a repaired file is uploaded.
    """
    registry = Registry(home)
    with tempfile.TemporaryDirectory(prefix="sdlora-doctor-") as scratch:
        versions = [version for name in registry.names() for version in registry.versions(name)]
        folders = [_folder_of(registry, version, home, Path(scratch)) for version in versions if _is_ours(version)]
        yield Registered(folders, partial(_find_rows, registry))


def _is_ours(version: AdapterVersion) -> bool:
    return {"adapter_digest", "run_digest"} <= version.tags.keys() and not version.files_removed


def _folder_of(registry: Registry, version: AdapterVersion, home: Path, scratch: Path) -> AdapterFolder:
    model = registry.client.get_logged_model(version.source.rpartition("/")[2])
    run = version.tags["run_digest"][:RUN_DIGITS]
    upload = None
    files = local_folder(model.artifact_location, registry.client.tracking_uri)
    if files is not None:
        folder = files / ADAPTER_FOLDER
    else:
        root = scratch / model.model_id
        root.mkdir()
        with suppress(MlflowException, OSError):  # files that cannot be downloaded count as missing
            mlflow.artifacts.download_artifacts(version.source, dst_path=str(root))
        folder = root / ADAPTER_FOLDER
        upload = partial(registry.client.log_model_artifacts, model.model_id, str(root))
    return AdapterFolder(
        folder,
        f"{version.name} version {version.number} in MLflow",
        run,
        "adapter",
        f"{version.remedy(home / 'runs' / version.name / run)} Then repeat this command.",
        version.tags["adapter_digest"],
        has_evidence=True,
        on_restored=upload,
        address=version.source if upload else "",
    )


def _find_rows(registry: Registry, digest: str) -> Sequence[SnapshotRow] | None:
    """Find the logged list of images of a snapshot in any run that trained on it."""
    experiments = [experiment.experiment_id for experiment in registry.client.search_experiments()]
    for run in registry.client.search_runs(experiments, f"tags.snapshot_digest = '{digest}'"):
        with suppress(MlflowException, OSError, ValueError, KeyError), tempfile.TemporaryDirectory() as scratch:
            path = registry.client.download_artifacts(run.info.run_id, SNAPSHOT_FILE, scratch)
            logged = json.loads(Path(path).read_text())
            if logged["digest"] == digest:
                return TypeAdapter(tuple[SnapshotRow, ...]).validate_python(logged["rows"])
    return None
