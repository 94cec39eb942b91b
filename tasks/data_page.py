"""The data page of a run: written to the state folder. The training's record in MLflow gets it, where browsers find it.

A page of Prefect cannot link a file, and before the training there is no record: the run's log names the path.
"""

from __future__ import annotations

from pathlib import Path

from sdlora.core.errors import SdloraError
from sdlora.data.config import DataConfig
from sdlora.store.image_store import ImageStore
from tasks.run_log import log_text, run_log

LOGGED_FOLDER = "data"


def data_page_file(home: Path, snapshot_digest: str | None = None) -> Path:
    """Where the page of a snapshot lies, or, without one, the page of the images as they are today."""
    return home / "pages" / (f"data-{snapshot_digest[:16]}.html" if snapshot_digest else "data.html")


def publish_data_page(store: ImageStore, config: DataConfig, home: Path, snapshot_digest: str | None = None) -> None:
    """Write the page and name it in the log. A run goes on without it: a picture of the work is not the work."""
    from sdlora.release.data_page import write_data_page

    path = data_page_file(home, snapshot_digest)
    try:
        written = write_data_page(store, config, path, title="Images", snapshot_digest=snapshot_digest)
    except SdloraError:
        run_log().warning("The page of the images could not be written.", exc_info=True)
        return
    if written.trouble:
        run_log().warning("The page of the images does not tell what is new: %s", log_text(written.trouble, 1000))
    run_log().info("What was left out and why, and what is new, with pictures: %s", path)


def logged_data_page(snapshot_digest: str) -> str:
    """Where the page lies in the record of the training."""
    return f"{LOGGED_FOLDER}/{data_page_file(Path(), snapshot_digest).name}"
