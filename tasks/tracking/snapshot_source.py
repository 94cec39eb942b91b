"""MLflow dataset source for the training images: a snapshot of the image database, listed in an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
from mlflow.data.dataset_source import DatasetSource


class SnapshotSource(DatasetSource):
    """Snapshot by its full digest; MLflow's own dataset digest is limited to 36 characters."""

    def __init__(self, digest: str, manifest_uri: str) -> None:
        self.digest, self.manifest_uri = digest, manifest_uri

    @staticmethod
    def _get_source_type() -> str:
        return "sdlora_snapshot"

    def load(self, **_: Any) -> Path:
        """Download the list of images, captions and splits."""
        return Path(mlflow.artifacts.download_artifacts(self.manifest_uri))

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return False

    @classmethod
    def _resolve(cls, raw_source: Any) -> SnapshotSource:
        raise NotImplementedError("A snapshot is identified by its digest and cannot be resolved from an address.")

    def to_dict(self) -> dict[Any, Any]:
        return {"digest": self.digest, "manifest_uri": self.manifest_uri}

    @classmethod
    def from_dict(cls, source_dict: dict[Any, Any]) -> SnapshotSource:
        return cls(source_dict["digest"], source_dict["manifest_uri"])
