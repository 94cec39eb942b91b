"""MLflow run of an adapter: parameters, curves, images, data lineage."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE
from PIL import Image

from sdlora.core.files import replace_file
from tasks.background import BackgroundSender
from tasks.tracking.links import RunPage
from tasks.tracking.snapshot_source import SnapshotSource
from tasks.tracking.store import get_or_create_experiment, open_store, page_server

FLUSH_SECONDS = 2.0
_BRIEF_SECONDS = 5.0
_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
DATASET_DIGEST_LENGTH = 36  # MLflow's limit; the full digest is in the run's tags
RUN_ID_FILE = "mlflow_run.txt"
SNAPSHOT_FILE = "snapshot.json"


class TrackedRun:
    """Writer for the run of an adapter, used by the stages."""

    def __init__(self, client: mlflow.MlflowClient, run_id: str) -> None:
        self.client, self.run_id = client, run_id
        self._pending: list[Metric] = []
        self._pending_lock = threading.Lock()  # training adds points while the sender takes them
        self._flushed_at = time.monotonic()
        self._last_steps: dict[str, int] = {}
        self._sender = BackgroundSender("MLflow")

    @property
    def page(self) -> RunPage:
        """Page of the run in MLflow."""
        info = self.client.get_run(self.run_id).info
        return RunPage(info.experiment_id, self.run_id, page_server(self.client))

    def describe(self, text: str) -> None:
        """Write the run's description, as markdown."""
        self.client.set_tag(self.run_id, MLFLOW_RUN_NOTE, text)

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Add points to the curves; a resumed training's repeated points are dropped.

        Points are sent in batches, because one SQLite transaction per training step costs more than a small step. They
        are sent in the background: a server that is away delays no training, and gets the points when it returns.
        """
        now = int(time.time() * 1000)
        points = [Metric(name, value, now, step) for name, value in values.items()]
        with self._pending_lock:
            self._pending += points
        if time.monotonic() - self._flushed_at > FLUSH_SECONDS:
            self._flushed_at = time.monotonic()
            self._sender.submit(self._send_pending, key="curves")

    def log_summary(self, values: Mapping[str, float]) -> None:
        """Record single numbers, such as the scores of a duel."""
        now = int(time.time() * 1000)
        self.client.log_batch(self.run_id, metrics=[Metric(name, value, now, 0) for name, value in values.items()])

    def log_files(self, *paths: Path, folder: str | None = None) -> None:
        for path in paths:
            self.client.log_artifact(self.run_id, str(path), folder)

    def log_small(self, path: Path, width_px: int, name: str) -> None:
        """Add a picture, reduced to a width, because MLflow's descriptions show pictures at full size."""
        with Image.open(path) as picture:
            small = picture.convert("RGB")
        small.thumbnail((width_px, small.height))
        self.client.log_image(self.run_id, small, name)

    def log_picture(self, path: Path, folder: str) -> None:
        """Add a picture during training, in the background."""
        self._sender.submit(partial(self.log_files, path, folder=folder))

    def log_json(self, value: Any, name: str) -> None:
        self.client.log_text(self.run_id, json.dumps(value, indent=1), name)

    def log_snapshot(self, digest: str, name: str, rows: list[dict[str, Any]]) -> None:
        """Log the training images: all rows as `snapshot.json`, and a dataset that refers to that file."""
        self.log_json({"digest": digest, "rows": rows}, SNAPSHOT_FILE)
        source = SnapshotSource(digest, mlflow.get_artifact_uri(SNAPSHOT_FILE))
        dataset = MetaDataset(source, name=name, digest=digest[:DATASET_DIGEST_LENGTH])  # type: ignore[abstract]  # MLflow's own class
        mlflow.log_input(dataset, context="training")

    def curve(self, name: str) -> list[tuple[int, float]]:
        """Return all points of a metric as (step, value), sorted by step."""
        return sorted((point.step, point.value) for point in self.client.get_metric_history(self.run_id, name))

    def flush(self) -> None:
        """Send what waits; a server that is away is waited for.

        Raises:
            MlflowException: the server stayed away.
        """
        self._sender.wait()
        self._send_pending()

    def flush_briefly(self) -> None:
        """Send what waits if the server answers within seconds."""
        if self._sender.wait(_BRIEF_SECONDS):
            self._send_pending()

    def _send_pending(self) -> None:
        with self._pending_lock:
            points, self._pending = self._pending, []
        try:
            new = [point for point in points if point.step > self._last_step(point.key)]
            if new:
                self.client.log_batch(self.run_id, metrics=new)
        except MlflowException:
            with self._pending_lock:
                self._pending = points + self._pending
            raise

    def _last_step(self, name: str) -> int:
        if name not in self._last_steps:
            history = self.client.get_metric_history(self.run_id, name)
            self._last_steps[name] = max((point.step for point in history), default=-1)
        return self._last_steps[name]


@contextmanager
def tracked_run(
    home: Path, name: str, folder: Path, params: Mapping[str, Any], tags: Mapping[str, str]
) -> Iterator[TrackedRun]:
    """Resume the MLflow run of the run folder `folder`, or create the run.

    The run is marked finished at the end of the block, failed if the block raises, and killed on Ctrl-C.
    """
    client = open_store(home)
    run_id = _existing_run(client, folder / RUN_ID_FILE)
    if run_id is None:
        run_tags = {"mlflow.runName": f"{name}-{folder.name[:8]}", **tags}
        new_run = client.create_run(get_or_create_experiment(client, name, home).experiment_id, tags=run_tags)
        run_id = new_run.info.run_id
        for key, value in params.items():
            client.log_param(run_id, key, value)
        replace_file(folder / RUN_ID_FILE, run_id.encode())
    run = TrackedRun(client, run_id)
    mlflow.start_run(run_id=run_id, log_system_metrics=True)
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        if status == "FINISHED":
            run.flush()
            mlflow.end_run(status)
        else:
            # The error of the block is raised, not a second one from a server that cannot be reached.
            with _without_retries(), suppress(MlflowException):
                run.flush_briefly()
            with _without_retries(), suppress(MlflowException):
                mlflow.end_run(status)


@contextmanager
def _without_retries() -> Iterator[None]:
    """Let requests of the block fail at once if the server is away: the run ends, and its process has to end soon."""
    before = os.environ.get(_RETRIES)
    os.environ[_RETRIES] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_RETRIES]
        else:
            os.environ[_RETRIES] = before


def has_run(home: Path, folder: Path) -> bool:
    """Return True if MLflow has a run for the run folder."""
    return _existing_run(open_store(home), folder / RUN_ID_FILE) is not None


def _existing_run(client: mlflow.MlflowClient, file: Path) -> str | None:
    if not file.is_file():
        return None
    run_id = file.read_text().strip()
    try:
        deleted = client.get_run(run_id).info.lifecycle_stage == "deleted"
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):  # such as a server that is away
            raise
        return None  # the store was cleared or moved away
    return None if deleted else run_id
