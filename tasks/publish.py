"""Stage 7: put the adapter, with its evidence, where people find it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact

from sdlora.artifacts import AdapterRef, BaseModelRef, SnapshotRef
from sdlora.config import ResolvedConfig
from sdlora.errors import EvaluationError
from sdlora.evaluation import Decision, Duel
from sdlora.evidence import CONTESTANTS, Choice, load_choice
from sdlora.release import Curve, VersionRecord, write_release
from sdlora.store import ImageStore
from tasks.data_page import data_page_file
from tasks.data_summary import summarise_data
from tasks.pages import release_page
from tasks.progress import task_progress
from tasks.results import Release, RunRef
from tasks.tracking import Registry, TrackedRun, tracked_run
from tasks.versions import code_version

CURVES = {"training": "loss", "validation": "validation_loss"}


@task(name="publish", persist_result=False)
def publish(
    base: BaseModelRef,
    candidate: AdapterRef,
    snapshot: SnapshotRef,
    duel: Duel,
    decision: Decision,
    config: ResolvedConfig,
    run: RunRef,
    home: Path,
) -> Release:
    """Write the release folder, register the version, and make it the champion if the gate said so.

    Every step can be repeated: the same adapter gives the same version, and a run that was killed in between is
    finished by the next one.

    Raises:
        EvaluationError: another version became champion after the duel.
    """
    report = task_progress()
    registry = Registry(home)
    _require_same_champion(registry, config.name, duel, run)
    number = registry.number_of(config.name, candidate.digest)
    tags = _tags(base, candidate, snapshot, duel, decision, config)
    with tracked_run(home, config.name, run.folder, {}, {}) as tracked:
        record = _record(tracked, number, base, candidate, snapshot, duel, decision, config, run, home)
        release_folder = write_release(run.release, record)
        report("publish", 1, 3)
        tracked.log_summary(_scores(duel) | _kept(record.choice))
        tracked.log_files(*(run.evaluation / name for name in (duel.grid, duel.before_after_grid)), folder="images")
        tracked.log_files(release_folder / "report.html")
        description = "\n".join([f"**{record.verdict}**", *(f"- {reason}" for reason in decision.reasons)])
        version = registry.register(config.name, release_folder, base.folder, tags, tracked.run_id, description)
    with ImageStore.open(home) as store:
        store.add_version(config.name, version.number, candidate.digest, snapshot.digest)
    report("publish", 2, 3)
    if decision.promote:
        registry.promote(version, decision.duel_digest)
    registry.finish(version)
    report("publish", 3, 3)
    release = version.as_release(run, new=True)
    page = release_page(config.name, version.number, release.report, release.grid, registry.page_of(version))
    create_markdown_artifact(page, key="release", description="Report and registry")
    return release


def _require_same_champion(registry: Registry, name: str, duel: Duel, run: RunRef) -> None:
    rival = registry.rival_of(name, run_digest=run.digest)
    found = rival.tags["adapter_digest"] if rival else None
    if found != duel.champion_digest:
        raise EvaluationError(
            f"The champion of {name!r} changed while the duel was fought, so its outcome says nothing about the new "
            "one. Run again: only the duel is repeated."
        )


def _tags(
    base: BaseModelRef,
    candidate: AdapterRef,
    snapshot: SnapshotRef,
    duel: Duel,
    decision: Decision,
    config: ResolvedConfig,
) -> dict[str, str]:
    kid = {name: duel.scores[name].metrics.get("kid") for name in CONTESTANTS if name in duel.scores}
    scores = {name: f"{estimate.value:.4f}" for name, estimate in kid.items() if estimate}
    return {
        "adapter_digest": candidate.digest,
        "base_digest": base.digest,
        "snapshot_digest": snapshot.digest,
        "run_digest": candidate.run_digest,
        "config_digest": config.digest(),
        "duel_digest": decision.duel_digest,
        "code_version": code_version(),
        "base_model": config.base_model.model_dump_json(),
        "train_count": str(snapshot.train_count),
        "held_out_count": str(snapshot.held_out_count),
        "kid": scores.get("candidate", "missing"),
        "kid_base": scores.get("base", "missing"),
        "decision": "promoted" if decision.promote else "not promoted",
        "reasons": "\n".join(decision.reasons),
    }


def _record(
    tracked: TrackedRun,
    number: int,
    base: BaseModelRef,
    candidate: AdapterRef,
    snapshot: SnapshotRef,
    duel: Duel,
    decision: Decision,
    config: ResolvedConfig,
    run: RunRef,
    home: Path,
) -> VersionRecord:
    curves = [Curve(name, points) for name, metric in CURVES.items() if (points := tracked.curve(metric))]
    with ImageStore.open(home) as store:
        data = summarise_data(store, snapshot.digest)
    return VersionRecord(
        name=config.name,
        version=str(number),
        created=datetime.now(UTC),
        base_name=base.name,
        duel=duel,
        decision=decision,
        duel_folder=run.evaluation,
        adapter_folder=candidate.folder,
        data=data,
        curves=curves,
        choice=load_choice(run.folder),
        samples=run.samples if run.samples.is_file() else None,
        settings=config.model_dump(mode="json"),
        code_version=code_version(),
        data_page=data_page_file(home, snapshot.digest),
    )


def _kept(choice: Choice | None) -> dict[str, float]:
    if choice is None or choice.validation_loss is None:
        return {}
    kid = {"kept_validation_kid": choice.validation_kid.value} if choice.validation_kid else {}
    return {"kept_step": choice.step, "kept_validation_loss": choice.validation_loss, **kid}


def _scores(duel: Duel) -> dict[str, float]:
    """All scores by `contestant/metric`, with the ends of their intervals."""
    return {
        f"{name}/{metric}{suffix}": value
        for name, scores in duel.scores.items()
        for metric, estimate in scores.metrics.items()
        for suffix, value in (("", estimate.value), ("_low", estimate.low), ("_high", estimate.high))
    }
