"""Stage 1: new images into the dataset, and a verdict for every image."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact

from sdlora.core.errors import DataError
from sdlora.core.progress import OnProgress
from sdlora.data.clean import CleanReport, clean
from sdlora.data.collect import collect
from sdlora.data.collect_report import CollectReport
from sdlora.data.config import ResolvedData
from sdlora.store.dataset import Dataset
from sdlora.store.image_store import ImageStore
from tasks.fan_out import measurer
from tasks.notify.silence import source_is_silent, source_spoke
from tasks.pages.run_names import add_to_name, count_of
from tasks.pages.run_page import images_page
from tasks.progress import task_progress
from tasks.retries import RETRIED
from tasks.run_log import log_text, run_log

LOGGED_EXAMPLES = 5  # of each kind in the log; the data page has all


@task(
    name="collect images",
    **RETRIED,
    persist_result=False,
)
def collect_images(config: ResolvedData, home: Path) -> tuple[CollectReport, ...]:
    """Read every source into the dataset; known images cost nothing."""
    progress, reports = task_progress(), []
    with ImageStore.open(home) as store:
        dataset = store.dataset(config.dataset)
        for source in config.sources:
            reports.append(collect_source(dataset, source, config, progress))
            _log_source(reports[-1])
    return tuple(reports)


def collect_source(
    dataset: Dataset, source: str, config: ResolvedData, progress: OnProgress | None = None, settle_seconds: float = 0.0
) -> CollectReport:
    """Read one source; people hear of a source that gave images before and gives none several times.

    Args:
        settle_seconds: see `collect`.
    """
    home = dataset.store.home
    try:
        report = collect(dataset, source, config, on_progress=progress, settle_seconds=settle_seconds)
    except DataError as error:
        source_is_silent(home, dataset.name, source, str(error))
        raise
    if report.files > report.skipped_count:
        source_spoke(home, dataset.name, source)
    else:
        source_is_silent(home, dataset.name, source, "It holds no image that can be read.")
    return report


@task(name="clean images", persist_result=False, **RETRIED)
def clean_images(collected: tuple[CollectReport, ...], config: ResolvedData, home: Path) -> CleanReport:
    """Run the checks that an image lacks, and decide every image by the current thresholds."""
    with ImageStore.open(home) as store:
        dataset = store.dataset(config.dataset)
        report = clean(dataset, config, on_progress=task_progress(), measurer=measurer())
        _log_verdicts(dataset, report)
    new_images = count_of(sum(source.new for source in collected), "new image")
    add_to_name(new_images)
    counts = report.counts
    create_markdown_artifact(
        images_page(collected, report),
        key="images",
        description=f"{counts.accepted} images accepted, {counts.rejected} left out; {new_images} came in",
    )
    return report


def _log_source(report: CollectReport) -> None:
    log, unread_count = run_log(), report.skipped_count + report.unmatched_count
    log.info(
        "%s: %d files, %d new, %d known, %d not read",
        log_text(report.source),
        report.files,
        report.new,
        report.known,
        unread_count,
    )
    for file in report.skipped[:LOGGED_EXAMPLES]:
        log.info("not read: %s: %s", log_text(file.path), log_text(file.reason))
    for name in report.unmatched[:LOGGED_EXAMPLES]:
        log.info("missing, although the captions name it: %s", log_text(name))
    for problem in report.problems[:LOGGED_EXAMPLES]:
        log.info("not read, no image is lost: %s: %s", log_text(problem.path), log_text(problem.reason))


def _log_verdicts(dataset: Dataset, report: CleanReport) -> None:
    log, counts = run_log(), report.counts
    by_check = ", ".join(f"{check} {count}" for check, count in counts.rejected_by.items())
    log.info(
        "%d images judged now; of all %d in dataset %s, %d are accepted, %d rejected%s",
        report.decided,
        counts.total,
        dataset.name,
        counts.accepted,
        counts.rejected,
        f" ({by_check})" if by_check else "",
    )
    for rejection in report.rejected[:LOGGED_EXAMPLES]:
        files = dataset.image(rejection.sha256).files
        log.info(
            "rejected by %s: %s: %s",
            rejection.check,
            log_text(files[0] if files else rejection.sha256[:12]),
            log_text(rejection.reason),
        )
