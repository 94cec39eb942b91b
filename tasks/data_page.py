"""The data page of a run: written to the state folder and linked from the run's page."""

from __future__ import annotations

import logging
from pathlib import Path

from prefect.artifacts import create_link_artifact

from sdlora.data import DataConfig
from sdlora.errors import SdloraError
from sdlora.store import ImageStore


def data_page_file(home: Path, snapshot_digest: str | None = None) -> Path:
    """Where the page of a snapshot lies, or, without one, the page of the images as they are today."""
    return home / "pages" / (f"data-{snapshot_digest[:16]}.html" if snapshot_digest else "data.html")


def publish_data_page(store: ImageStore, config: DataConfig, home: Path, snapshot_digest: str | None = None) -> None:
    """Write the page and link it. A run goes on without it: a picture of the work is not the work."""
    from sdlora.release import write_data_page

    path = data_page_file(home, snapshot_digest)
    try:
        written = write_data_page(store, config, path, title="Images", snapshot_digest=snapshot_digest)
    except SdloraError:
        logging.getLogger(__name__).warning("the data page could not be written", exc_info=True)
        return
    if written.trouble:
        logging.getLogger(__name__).warning("the data page does not tell what is new: %s", written.trouble)
    create_link_artifact(
        path.as_uri(), link_text=path.name, key="data-page", description="What was left out and why, and what is new"
    )
