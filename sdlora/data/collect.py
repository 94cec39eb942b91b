"""Collection of the images of a source into a dataset, without decoding them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from sdlora.core.progress import OnMetrics, OnProgress
from sdlora.data.collect_report import CollectReport
from sdlora.data.config import DataConfig
from sdlora.data.source_pass import SourcePass
from sdlora.data.sources import SourceContext, open_source
from sdlora.store.dataset import Dataset


def collect(
    dataset: Dataset,
    uri: str,
    config: DataConfig,
    on_progress: OnProgress | None = None,
    on_metrics: OnMetrics | None = None,
    settle_seconds: float = 0.0,
) -> CollectReport:
    """Record every image of a source with its bytes, captions and path, and make it a member of the dataset.

    Equal bytes are stored once, for all datasets. Files unchanged since the last collection are not read. A killed run
    leaves only complete images, and the next run continues from there.

    Args:
        uri: a folder, an archive, a list of URLs, a dataset, or another kind of source known to `open_source`.
        on_progress: called with the number of items done; the total is 0 while unknown.
        on_metrics: called with the `bytes` read so far.
        settle_seconds: leave files of a folder that changed less than this time ago, because they may still be written.
            Not with `mirror_sources`, which would take them for gone.
    Raises:
        DataError: the source does not exist or holds no image.
        StorageError: the disk is full or not writable.
    """
    settle_seconds = 0.0 if config.mirror_sources else settle_seconds
    source = open_source(uri, SourceContext(config, dataset.store, settle_seconds))
    with closing(source), ThreadPoolExecutor(1) as flusher:
        intake = SourcePass(dataset, source, config, on_progress, on_metrics, flusher)
        for outcome in intake.outcomes():
            intake.take(outcome)
        return intake.finish()
