"""Train the same images in several ways, and score them against their base and each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from prefect import task
from prefect.artifacts import create_markdown_artifact
from pydantic import ValidationError

from sdlora.config import PipelineConfig, ResolvedConfig
from sdlora.core.config_base import dotted
from sdlora.core.errors import ConfigError
from sdlora.core.refs import ADAPTER_WEIGHTS, BaseModelRef, SnapshotRef
from sdlora.data.snapshot import load_snapshot
from sdlora.lora.config import LoraConfig, Method, ResolvedLora
from sdlora.records.comparison import COMPARISON_GRID, Comparison, title
from sdlora.store.image_store import ImageStore
from sdlora.training.config import ResolvedTraining
from sdlora.training.defaults import resolve_lora, resolve_training
from sdlora.training.identity import run_digest
from tasks.markdown import table
from tasks.pages import Link, links_line
from tasks.progress import TrainingListener, task_progress
from tasks.retries import is_passing_trouble
from tasks.run_log import run_log
from tasks.settings import check_trainable
from tasks.tracking import tracked_run
from tasks.versions import code_version

if TYPE_CHECKING:
    from sdlora.evaluation.comparison import Trained

Way = Method | Literal["full"]
WAYS: tuple[str, ...] = (*get_args(Method), "full")


@dataclass(frozen=True)
class WaySettings:
    """The settings of one way to train; without `lora` all weights of the denoiser learn."""

    lora: ResolvedLora | None
    training: ResolvedTraining


@task(name="resolve settings", persist_result=False)
def resolve_ways(
    ways: Sequence[Way], base: BaseModelRef, config: PipelineConfig, full_learning_rate: float | None, home: Path
) -> dict[str, WaySettings]:
    """Fill the empty settings of every way, and check them all before the first is trained.

    Raises:
        ConfigError: no such way, or one that the settings of the others do not allow.
    """
    settings = {str(way): _settings_of(way, base, config, full_learning_rate, home) for way in ways}
    check_trainable(base, [(one.lora, one.training) for one in settings.values()])
    return settings


@task(name="encode images", persist_result=False)
def encode_once(base: BaseModelRef, snapshot: SnapshotRef, settings: ResolvedConfig, home: Path) -> None:
    """Fill the cache of latents and embeddings, so that whoever trains first does not pay for all."""
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
    name="train one way",
    retries=1,  # the retry goes on from the last checkpoint
    retry_delay_seconds=30,
    retry_condition_fn=is_passing_trouble,
    persist_result=False,
)
def train_one_way(
    way: str, settings: WaySettings, base: BaseModelRef, snapshot: SnapshotRef, name: str, home: Path
) -> Trained:
    """Train an adapter or the whole denoiser in a process of its own, and measure time and memory; curves go to MLflow.

    In this process, memory would be that of whatever ran before. And as it is one process, for all ways, the setting
    training.num_processes is left out: it takes memory and time for the sake of time.
    """
    from sdlora.evaluation.comparison import Trained
    from sdlora.lora.load import open_adapter
    from sdlora.processes.costs import read_costs
    from sdlora.training.full import MODEL_FOLDER, open_model
    from sdlora.training.job import TrainingJob
    from sdlora.training.launch import run_job_in_subprocess
    from sdlora.training.results import ADAPTER_FOLDER

    lora, training = settings.lora, settings.training
    digest = run_digest(base.digest, snapshot.digest, lora, training, base.quantize)
    folder = home / "runs" / f"{name}-compare" / digest[:16]
    parameters = {"way": way, **_parameters(settings)}
    tags = {"base_digest": base.digest, "snapshot_digest": snapshot.digest, "run_digest": digest, "way": way}
    tags["code_version"] = code_version()
    with ImageStore.open(home) as store:
        job = TrainingJob(base, load_snapshot(store, snapshot.digest), lora, training, folder, name)
    run_log().info("Training %s, run %s", title(way), digest)
    with tracked_run(home, f"{name}-compare", folder, parameters, tags) as record:
        place = folder / (MODEL_FOLDER if lora is None else ADAPTER_FOLDER)
        if not place.is_dir():
            run_job_in_subprocess(job, home, TrainingListener(record, training.steps))
        model, adapter = (open_model(folder, home), None) if lora is None else (base, open_adapter(place))
        file = _weights(place, adapter is None)
        costs = read_costs(folder)
        trained = Trained(
            model=model,
            adapter=adapter,
            steps=training.steps,
            trained_parameters=_count(file),
            seconds=float(costs.get("seconds", 0.0)),
            processor_seconds=float(costs.get("processor_seconds", 0.0)),
            process_peak_bytes=int(costs.get("process_peak_bytes", 0)),
            training_peak_bytes=int(costs.get("training_peak_bytes", 0)),
            file_bytes=file.stat().st_size,
        )
        record.log_summary(
            {
                "train_seconds": trained.seconds,
                "processor_seconds": trained.processor_seconds,
                "process_peak_megabytes": trained.process_peak_bytes / 1e6,
                "training_peak_megabytes": trained.training_peak_bytes / 1e6,
                "file_megabytes": trained.file_bytes / 1e6,
            }
        )
    return trained


@task(name="compare", persist_result=False)
def compare_trained(
    base: BaseModelRef,
    trained: dict[str, Trained],
    snapshot: SnapshotRef,
    settings: ResolvedConfig,
    neutral_prompts: tuple[str, ...],
    home: Path,
) -> tuple[Comparison, Path]:
    """Score everyone on the same prompts and seeds, and write the page; returns what was found and the page."""
    from sdlora.core.files import json_digest
    from sdlora.evaluation.comparison import compare
    from sdlora.evaluation.neutral import neutral_prompts as default_prompts
    from sdlora.release.comparison_page import cost_rows, quality_rows, write_comparison_page

    key = json_digest({"trained": {name: one.digest for name, one in trained.items()}, "snapshot": snapshot.digest})
    folder = home / "comparisons" / settings.name / key[:16]
    budget = (
        f"The same images, captions, batches of {settings.training.batch_size}, noise and seed; the budget is "
        f"{_budget({name: one.steps for name, one in trained.items()})}."
    )
    with (
        ImageStore.open(home) as store,
        tracked_run(
            home, f"{settings.name}-compare", folder, {"ways": ", ".join(trained)}, {"kind": "comparison"}
        ) as record,
    ):
        comparison = compare(
            base,
            trained,
            load_snapshot(store, snapshot.digest),
            store,
            settings.evaluation,
            neutral_prompts or default_prompts(base),
            budget,
            folder,
            task_progress(),
        )
        page = write_comparison_page(folder, comparison, settings.name)
        record.log_files(page, folder / COMPARISON_GRID, folder / "comparison.json")
        link = Link("The comparison with its pictures", record.page.absolute_url(record.page.file(page.name)), page)
        for one in comparison.contenders:
            record.log_summary({f"{one.name}.{name}": value.value for name, value in one.metrics.items()})
    rows = [*quality_rows(comparison), *cost_rows(comparison)]
    heads = ["", *(one.name for one in comparison.contenders)]
    shown = table(heads, [[label, *cells] for label, cells in rows])
    create_markdown_artifact(f"{links_line([link])}\n\n{shown}", key="comparison", description=budget)
    for label, cells in rows:
        run_log().info(
            "%s: %s", label, ", ".join(f"{head} {cell}" for head, cell in zip(heads[1:], cells, strict=True))
        )
    return comparison, page


def _settings_of(
    way: str, base: BaseModelRef, config: PipelineConfig, full_learning_rate: float | None, home: Path
) -> WaySettings:
    """The settings of one way to train; all share the configuration's, as far as they apply."""
    if way not in WAYS:
        raise ConfigError(f"methods: {way!r} is no way to train. Known: {', '.join(WAYS)}.")
    training = resolve_training(config.training.model_copy(update={"num_processes": 1}), base, home)
    if way == "full":
        # Whole weights move with every step; a tenth of an adapter's rate is the usual proportion.
        rate = full_learning_rate or training.learning_rate / 10
        return WaySettings(None, training.model_copy(update={"learning_rate": rate}))
    given = config.lora.model_dump(exclude_none=True, exclude={"method"})
    try:
        lora = resolve_lora(LoraConfig.model_validate({**given, "method": way}), base)
    except ValidationError as error:
        problems = "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())
        raise ConfigError(f"methods: {way} does not go with the settings under lora. {problems}.") from error
    return WaySettings(lora, training)


def _budget(steps: Mapping[str, int]) -> str:
    first, *others = steps
    if len(set(steps.values())) == 1:
        return f"{steps[first]} optimiser steps each, whatever time they take"
    counts = ", ".join(f"{title(name)} {steps[name]}" for name in others)
    return f"the time of {steps[first]} steps of {title(first)}, in which others take: {counts}"


def _weights(folder: Path, whole: bool) -> Path:
    from sdlora.models.families import find_layout
    from sdlora.models.files.folder_check import weights_files

    if whole:
        return weights_files(folder, find_layout(folder).denoiser)[0]
    return folder / ADAPTER_WEIGHTS


def _count(file: Path) -> int:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as weights:
        shapes = [weights.get_slice(key).get_shape() for key in weights.keys()]  # noqa: SIM118
    total = 0
    for shape in shapes:
        size = 1
        for side in shape:
            size *= side
        total += size
    return total


def _parameters(settings: WaySettings) -> dict[str, str]:
    sections = {"training": settings.training.model_dump(mode="json")}
    if settings.lora:
        sections["lora"] = settings.lora.model_dump(mode="json")
    return {name: str(value) for name, value in dotted(sections).items()}
