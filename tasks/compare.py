"""Tasks of `compare`: train the same images with several methods, and score them with their base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task
from prefect.artifacts import create_markdown_artifact

from sdlora.config import PipelineConfig, ResolvedConfig
from sdlora.core.refs import BaseModelRef, SnapshotRef
from sdlora.data.snapshot import load_snapshot
from sdlora.records.comparison import COMPARISON_FILE, COMPARISON_GRID, Comparison, title
from sdlora.store.image_store import ImageStore
from sdlora.training.identity import run_digest
from sdlora.training.methods import MethodSettings, check_methods, resolve_method
from tasks.budget import budget_in_words
from tasks.pages.markdown import table
from tasks.pages.run_page import Link, links_line
from tasks.progress import TrainingListener, task_progress
from tasks.retries import RETRIED
from tasks.run_log import run_log
from tasks.settings import check_trainable
from tasks.tracking import tracked_run
from tasks.train import flat_parameters, training_tags

if TYPE_CHECKING:
    from sdlora.evaluation.contest import Contestant


@task(name="resolve settings", persist_result=False)
def resolve_methods(
    methods: Sequence[str], base: BaseModelRef, config: PipelineConfig, full_learning_rate: float | None, home: Path
) -> dict[str, MethodSettings]:
    """Fill the empty settings of every method, and check them all before the first one trains.

    Raises:
        ConfigError: an unknown method, or a method that does not suit the other settings.
    """
    settings_by_method: dict[str, MethodSettings] = {
        method: resolve_method(method, config.lora, config.training, base, home, full_learning_rate)
        for method in check_methods(tuple(methods))
    }
    check_trainable(base, [(settings.lora, settings.training) for settings in settings_by_method.values()], home)
    return settings_by_method


@task(name="encode images", persist_result=False)
def encode_once(base: BaseModelRef, snapshot: SnapshotRef, settings: ResolvedConfig, home: Path) -> None:
    """Fill the cache of latents and embeddings, so that the first method's costs do not include it."""
    import torch

    from sdlora.training.job import TrainingJob
    from sdlora.training.setup import encode_inputs

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = home / "comparisons" / settings.name
    folder.mkdir(parents=True, exist_ok=True)
    with ImageStore.open(home) as store:
        frozen = load_snapshot(store, snapshot.digest)
        encode_inputs(TrainingJob(base, frozen, None, settings.training, folder), store, device, task_progress())


@task(
    name="train one method",
    **RETRIED,  # a retry continues from the last checkpoint
    persist_result=False,
)
def train_method(
    method: str, settings: MethodSettings, base: BaseModelRef, snapshot: SnapshotRef, name: str, home: Path
) -> Contestant:
    """Train an adapter or the whole denoiser in a fresh process, and measure time and memory; curves go to MLflow.

    The memory of the task's own process includes earlier work.
    """
    from sdlora.evaluation.contest import Contestant
    from sdlora.training.job import TrainingJob
    from sdlora.training.launch import run_alone
    from sdlora.training.results import costs_of_run

    lora, training = settings.lora, settings.training
    digest = run_digest(base.digest, snapshot.training_digest, lora, training, base.quantize)
    folder = home / "runs" / f"{name}-compare" / digest[:16]
    with ImageStore.open(home) as store:
        job = TrainingJob(base, load_snapshot(store, snapshot.digest), lora, training, folder, name)
    sections = {"lora": lora.model_dump(mode="json")} if lora else {}
    parameters = {"method": method, **flat_parameters({"training": training.model_dump(mode="json"), **sections})}
    tags = training_tags(job) | {"method": method}
    run_log().info("Training %s, run %s", title(method), digest)
    with tracked_run(home, f"{name}-compare", folder, parameters, tags) as record:
        model, adapter = run_alone(job, home, TrainingListener(record, training.steps))
        costs = costs_of_run(job)
        record.log_summary(
            {
                "train_seconds": costs.seconds,
                "processor_seconds": costs.processor_seconds,
                "process_peak_megabytes": costs.process_peak_bytes / 1e6,
                "training_peak_megabytes": costs.training_peak_bytes / 1e6,
                "file_megabytes": costs.file_bytes / 1e6,
            }
        )
    return Contestant(model, adapter, costs)


@task(name="compare", persist_result=False, **RETRIED)
def compare_methods(
    base: BaseModelRef,
    contestants: Mapping[str, Contestant],
    snapshot: SnapshotRef,
    settings: ResolvedConfig,
    neutral_prompts: tuple[str, ...],
    home: Path,
) -> tuple[Comparison, Path]:
    """Score all contestants on the same prompts and seeds, and write the page; return both."""
    from sdlora.core.files import json_digest
    from sdlora.evaluation.comparison import compare
    from sdlora.evaluation.contest import Contest
    from sdlora.evaluation.prompts import neutral_prompts as default_prompts
    from sdlora.release.comparison_page import write_comparison_page
    from sdlora.training.takedown import stopping_at_takedown

    key = json_digest(
        {"trained": {name: contestant.digest for name, contestant in contestants.items()}, "snapshot": snapshot.digest}
    )
    folder = home / "comparisons" / settings.name / key[:16]
    budget = budget_in_words(
        {name: contestant.costs.steps for name, contestant in contestants.items()}, settings.training.batch_size
    )
    parameters = {"methods": ", ".join(contestants)}
    with (
        ImageStore.open(home) as store,
        tracked_run(home, f"{settings.name}-compare", folder, parameters, {"kind": "comparison"}) as record,
    ):
        frozen = load_snapshot(store, snapshot.digest)
        contest = Contest(base, frozen, store, settings.evaluation, task_progress())
        with stopping_at_takedown(store, frozen, folder):
            comparison = compare(contest, contestants, neutral_prompts or default_prompts(base), budget, folder)
        page = write_comparison_page(folder, comparison, settings.name)
        record.log_files(page, folder / COMPARISON_GRID, folder / COMPARISON_FILE)
        link = Link("The comparison with its pictures", record.page.absolute_url(record.page.file(page.name)), page)
        for result in comparison.contestants:
            record.log_summary({f"{result.name}.{name}": value.value for name, value in result.metrics.items()})
    _publish_tables(comparison, link)
    return comparison, page


def _publish_tables(comparison: Comparison, link: Link) -> None:
    """Publish the tables on the run's page and in its log."""
    from sdlora.release.comparison_page import cost_rows, quality_rows

    rows = [*quality_rows(comparison), *cost_rows(comparison)]
    heads = ["", *(result.name for result in comparison.contestants)]
    markdown = table(heads, [[label, *cells] for label, cells in rows])
    create_markdown_artifact(f"{links_line([link])}\n\n{markdown}", key="comparison", description=comparison.budget)
    for label, cells in rows:
        run_log().info(
            "%s: %s", label, ", ".join(f"{head} {cell}" for head, cell in zip(heads[1:], cells, strict=True))
        )
