"""Stage 4: fine-tune one adapter on the snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from pydantic import TypeAdapter

from sdlora.config import ResolvedConfig
from sdlora.core.config_base import dotted
from sdlora.core.refs import AdapterRef, BaseModelRef, SnapshotRef
from sdlora.data.snapshot import SnapshotRow, load_snapshot
from sdlora.records.choice import load_choice
from sdlora.store.image_store import ImageStore
from tasks.code_version import code_version
from tasks.pages.data_page import LOGGED_FOLDER, data_page_file
from tasks.pages.version_page import training_description
from tasks.progress import TrainingListener, report_metrics
from tasks.results import RunRef
from tasks.retries import RETRIED
from tasks.run_log import run_log
from tasks.tracking import has_run, tracked_run
from tasks.waiting.daily_limit import stopping_at_daily_limit

if TYPE_CHECKING:
    from sdlora.training.job import TrainingJob


@task(
    name="fine-tune adapter",
    **RETRIED,  # a retry continues from the last checkpoint
    persist_result=False,  # the run folder holds the adapter and its digest; a finished one is returned as it is
)
def fine_tune_adapter(
    base: BaseModelRef, snapshot: SnapshotRef, config: ResolvedConfig, run: RunRef, home: Path
) -> AdapterRef:
    """Train an adapter or continue an interrupted training, with curves and data lineage in MLflow."""
    from sdlora.models.precision import probe_of_this_machine
    from sdlora.retention.space import require_space
    from sdlora.training.fine_tuning import finished_adapter
    from sdlora.training.job import TrainingJob
    from sdlora.training.launch import run_job
    from sdlora.training.run_folder import snapshot_of_run

    with ImageStore.open(home) as store:
        frozen = snapshot_of_run(run.folder, load_snapshot(store, snapshot.digest), store)
    job = TrainingJob(base, frozen, config.lora, config.training, run.folder, config.name)
    finished = finished_adapter(job)
    if finished is not None and has_run(home, run.folder):
        return finished  # its record is complete
    if finished is None:
        require_space(home, config.name, run.folder)
    tags = training_tags(job) | {"config_digest": config.digest()}
    probe = probe_of_this_machine(home)
    speedup = probe.speedup
    # Only the settings that decide the adapter.
    sections = config.model_dump(mode="json", include={"base_model", "lora", "training", "evaluation"})
    parameters = flat_parameters(sections) | {"bf16_speedup": "not measured" if speedup is None else f"{speedup:.2f}"}
    if speedup is not None:
        run_log().info("Training in %s; bf16 is %.2f times as fast as fp32 here", config.training.precision, speedup)
        if probe.precision == config.training.precision:  # the terminal calls the speedup the reason of the precision
            report_metrics(0, {"bf16_speedup": speedup})
    with (
        stopping_at_daily_limit(config.schedule, config.name, home),
        ImageStore.open(home) as store,
        tracked_run(home, config.name, run.folder, parameters, tags) as record,
    ):
        # All fields, so that the rows have the snapshot's digest and can replace damaged ones.
        rows = TypeAdapter(list[SnapshotRow]).dump_python(list(frozen.rows), mode="json", exclude_defaults=True)
        record.log_snapshot(frozen.digest, config.name, rows)
        record.log_json(config.model_dump(mode="json", exclude={"export", "schedule"}), "config.json")
        record.describe(training_description(config.name, base.name, snapshot))
        page = data_page_file(home, snapshot.dataset, snapshot.digest)
        if page.is_file():
            record.log_files(page, folder=LOGGED_FOLDER)
        adapter = run_job(job, store, _SamplesListener(record, config.training.steps))
    choice = load_choice(run.folder)
    if choice:
        run_log().info("%s", choice.in_words())
    return adapter


class _SamplesListener(TrainingListener):
    def on_samples(self, step: int, path: Path) -> None:
        self.record.log_picture(path, "samples")


def training_tags(job: TrainingJob) -> dict[str, str]:
    """Return the tags of a training's run in MLflow, by which programs find it."""
    return {
        "base_digest": job.base.digest,
        "snapshot_digest": job.snapshot.digest,
        "run_digest": job.digest,
        "code_version": code_version(),
    }


def flat_parameters(sections: Mapping[str, Any]) -> dict[str, str]:
    """Flatten settings by section, as MLflow shows them."""
    return {name: str(value) for name, value in dotted(sections).items()}
