"""Stage 1: bring new images into the image database and judge every one of them."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact

from sdlora.data import CleanReport, CollectReport, DataConfig, clean, collect
from sdlora.store import ImageStore
from tasks.fan_out import measurer
from tasks.pages import data_page
from tasks.progress import task_progress
from tasks.retries import is_passing_trouble


@task(
    name="collect images",
    retries=2,
    retry_delay_seconds=10,
    retry_condition_fn=is_passing_trouble,
    persist_result=False,
)
def collect_images(config: DataConfig, home: Path) -> tuple[CollectReport, ...]:
    """Read every source; images that are known already cost nothing."""
    with ImageStore.open(home) as store:
        return tuple(collect(store, source, config, on_progress=task_progress()) for source in config.sources)


@task(name="clean images", persist_result=False)
def clean_images(collected: tuple[CollectReport, ...], config: DataConfig, home: Path) -> CleanReport:
    """Run the checks that an image lacks, and decide every image by the thresholds of today."""
    with ImageStore.open(home) as store:
        report = clean(store, config, on_progress=task_progress(), measurer=measurer())
    create_markdown_artifact(data_page(collected, report), key="images", description="What came in and what is kept")
    return report
