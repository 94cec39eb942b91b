"""Bring images in and judge them, without training on them."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from sdlora.data import CleanReport, DataConfig
from tasks.alive import flow_run_alive
from tasks.collect import clean_images, collect_images


@flow(name="collect", persist_result=False)
def collect(data: DataConfig, home: Path = Path(".sdlora")) -> CleanReport:
    """Collect every source of the settings and clean what came in; what is known already costs nothing.

    Args:
        data: Where images come from, and which of them are kept.
        home: The state folder.
    """
    home = home.resolve()
    with flow_run_alive(home):
        collected = collect_images(data, home)
        return clean_images(collected, data, home)
