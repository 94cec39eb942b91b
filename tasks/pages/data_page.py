"""Data page of a run, in the state folder and, with the training's record, in MLflow.

A page of Prefect cannot link a file, and no record exists before the training, so the run's log names the path.
"""

from __future__ import annotations

from pathlib import Path

from sdlora.core.errors import SdloraError
from sdlora.core.refs import SnapshotRef
from sdlora.data.config import DataConfig
from sdlora.store.dataset import Dataset
from tasks.run_log import log_text, run_log

LOGGED_FOLDER = "data"


def data_page_file(home: Path, dataset: str, snapshot_digest: str | None = None) -> Path:
    """Return the path of the page of a dataset's snapshot; without a snapshot, of the dataset's images of today."""
    return home / "pages" / dataset / (f"data-{snapshot_digest[:16]}.html" if snapshot_digest else "data.html")


def publish_data_page(dataset: Dataset, config: DataConfig, home: Path, snapshot_digest: str | None = None) -> None:
    """Write the page and log its path. A failure is only logged, because the run does not need the page."""
    from sdlora.release.data_page import write_data_page

    path = data_page_file(home, dataset.name, snapshot_digest)
    try:
        written = write_data_page(
            dataset, config, path, title=f"Images of {dataset.name}", snapshot_digest=snapshot_digest
        )
    except SdloraError:
        run_log().warning("The data page could not be written.", exc_info=True)
        return
    if written.trouble:
        run_log().warning("The data page does not show the changes: %s", log_text(written.trouble, 1000))
    run_log().info("Data page (left-out images with reasons, new images): %s", path)


def logged_data_page(snapshot: SnapshotRef) -> str:
    """Return the page's path among the logged files of the training."""
    return f"{LOGGED_FOLDER}/{data_page_file(Path(), snapshot.dataset, snapshot.digest).name}"
