"""Stage 7: publish the adapter with its evidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact

from sdlora.config import ResolvedConfig
from sdlora.core.errors import EvaluationError, TakedownError
from sdlora.core.refs import AdapterRef, BaseModelRef, SnapshotRef
from sdlora.models.families.layouts import find_layout
from sdlora.records.choice import CHOICE_FILE, load_choice
from sdlora.records.decision import Decision
from sdlora.records.duel import DUEL_FILE, ContestantName, Duel
from sdlora.records.metrics import METRICS
from sdlora.release.folder import write_release
from sdlora.release.record import Curve, VersionRecord
from sdlora.store.champions import ScoredVersion, record_decision
from sdlora.store.image_store import ImageStore
from sdlora.store.lineage import record_version, require_publishable
from tasks.champion_reconciliation import LEADING_METRIC, reconcile_history, registered_opponent, sync_mlflow
from tasks.code_version import code_version
from tasks.data_page import LOGGED_FOLDER, data_page_file, logged_data_page
from tasks.data_summary import summarise_data
from tasks.pages import Link, result_page
from tasks.progress import task_progress
from tasks.results import Release, RunRef
from tasks.run_log import run_log
from tasks.tracking import AdapterVersion, Registry, TrackedRun, tracked_run
from tasks.version_page import REPORT, SUMMARY_PICTURE, run_description, version_description

METRICS_OF: dict[ContestantName, tuple[str, ...]] = {
    "candidate": ("kid", "fid", "denoising_psnr"),
    "champion": ("kid",),
    "base": ("kid",),
}
SUMMARY_WIDTH_PX = 640  # as wide as a description in MLflow's page, with its other panels open
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
    """Write the release folder, register the version, and make it the champion if the gate promotes it.

    There are eight parameters because the flow passes the result of each stage.

    Every step can be repeated. The same adapter gives the same version, and the same decision gives the same row of
    the champion history. A run that was killed while it published is finished by the next run.

    Raises:
        EvaluationError: the champion changed after the duel.
        TakedownError: an image of the snapshot was purged; the adapter is removed.
    """
    report = task_progress()
    registry = Registry(home)
    champion = _check_champion(registry, config.name, duel, run, home)
    number = registry.number_of(config.name, candidate.digest)
    with ImageStore.open(home) as store, _removal_at_takedown(store, run), store.read() as session:
        require_publishable(session, config.name, number, snapshot.digest)
    with tracked_run(home, config.name, run.folder, {}, {}) as tracked:
        record = _record(tracked, number, base, candidate, snapshot, duel, decision, config, run, home)
        release_folder = write_release(run.release, record)
        report("publish", 1, 3)
        page, data_page = tracked.page, _log_evidence(tracked, record, run, snapshot)
        version = registry.register(
            config.name,
            release_folder,
            base.folder,
            notes=_notes(base, candidate, snapshot, duel, config),
            tags=_tags(base, snapshot, duel),
            run_id=tracked.run_id,
        )
        report("publish", 2, 3)
        scored = _scored_version(version.number, candidate, snapshot, duel)
        with ImageStore.open(home) as store:
            with _removal_at_takedown(store, run, registry, version), store.write() as session:
                record_version(session, config.name, version.number, candidate.digest, snapshot.digest)
                record_decision(session, config.name, scored, decision, champion)
            sync_mlflow(registry, store, config.name)
        tracked.describe(run_description(page, record.verdict, config.name, version.number, decision))
    registry.describe_version(
        version, version_description(page, record.verdict, duel, decision, base.name, snapshot, data_page)
    )
    registry.finish(version)
    report("publish", 3, 3)
    release = Release(
        name=config.name,
        version=version.number,
        new=True,
        promoted=decision.promote,
        reasons=decision.reasons,
        run=run,
    )
    links = [
        Link("Report", page.absolute_url(page.file(REPORT)), release.report),
        Link(f"Version {version.number} in MLflow", registry.page_of(version), None),
        Link("Curves and settings", page.absolute_url(page.route), None),
        *([Link("Images", page.absolute_url(page.file(data_page)), release.data_page)] if data_page else []),
    ]
    _show_result(release, record, links)
    return release


@contextmanager
def _removal_at_takedown(
    store: ImageStore, run: RunRef, registry: Registry | None = None, version: AdapterVersion | None = None
) -> Iterator[None]:
    """Remove the adapter and the version that was just registered if the takedown of an image stops the block."""
    from sdlora.training.takedown import forget_run

    try:
        yield
    except TakedownError:
        if registry and version:
            registry.withdraw(version)
        forget_run(run.folder, store)
        raise


def _log_evidence(tracked: TrackedRun, record: VersionRecord, run: RunRef, snapshot: SnapshotRef) -> str | None:
    """Log scores, pictures and pages to the run of the training; return the path of the logged data page, if any."""
    duel, folder = record.duel, record.duel_folder
    tracked.log_summary(_scores(duel))
    tracked.log_files(*(folder / name for name in (duel.grid, duel.before_after_grid)), folder="images")
    tracked.log_small(folder / duel.before_after_grid, SUMMARY_WIDTH_PX, SUMMARY_PICTURE)
    choice = run.folder / CHOICE_FILE
    tracked.log_files(run.release / REPORT, folder / DUEL_FILE, *([choice] if choice.is_file() else []))
    if record.data_page is None or not record.data_page.is_file():
        return None
    tracked.log_files(record.data_page, folder=LOGGED_FOLDER)
    return logged_data_page(snapshot.digest)


def _show_result(release: Release, record: VersionRecord, links: Sequence[Link]) -> None:
    """Write the verdict and the links to the log and the page of the flow run."""
    title, log = f"{release.name} version {release.version}", run_log()
    log.info("%s: %s", record.verdict, title)
    for link in links:
        if link.address or link.path:
            log.info("%s: %s", link.label, link.address or link.path)
    page = result_page(title, record.verdict, record.decision, record.duel, record.duel_folder, links)
    create_markdown_artifact(page, key="result", description=f"{record.verdict}: {title}")


def _check_champion(registry: Registry, name: str, duel: Duel, run: RunRef, home: Path) -> int | None:
    """Check that the duel was run against the champion, and return the champion's number.

    `record_decision` checks the number again, under the write lock.
    """
    with ImageStore.open(home) as store:
        history = reconcile_history(registry, store, name)
    opponent = registered_opponent(registry, history, run.digest)
    opponent_digest = opponent.tags["adapter_digest"] if opponent else None
    if opponent_digest != duel.champion_digest:
        raise EvaluationError(
            f"The champion of {name!r} changed during the duel, so the duel does not compare with the new champion. "
            "Run again: only the duel is repeated."
        )
    return history.champion.number if history.champion else None


def _scored_version(number: int, candidate: AdapterRef, snapshot: SnapshotRef, duel: Duel) -> ScoredVersion:
    values = {
        contestant: scores.metrics[LEADING_METRIC].value
        for contestant, scores in duel.scores.items()
        if LEADING_METRIC in scores.metrics
    }
    return ScoredVersion(
        number=number,
        adapter_digest=candidate.digest,
        snapshot_digest=snapshot.digest,
        run_digest=candidate.run_digest,
        train_count=snapshot.train_count,
        metric=LEADING_METRIC,
        score=values.get("candidate"),
        base_score=values.get("base"),
    )


def _notes(
    base: BaseModelRef,
    candidate: AdapterRef,
    snapshot: SnapshotRef,
    duel: Duel,
    config: ResolvedConfig,
) -> dict[str, str]:
    """Collect the notes that programs read from the registry; the decision is added when it is recorded."""
    return {
        "adapter_digest": candidate.digest,
        "base_digest": base.digest,
        "snapshot_digest": snapshot.digest,
        "run_digest": candidate.run_digest,
        "config_digest": config.digest(),
        "code_version": code_version(),
        "base_model": config.base_model.model_dump_json(),
        "train_count": str(snapshot.train_count),
        "held_out_count": str(snapshot.held_out_count),
        "kid": _kid(duel, "candidate"),
        "kid_base": _kid(duel, "base"),
    }


def _tags(base: BaseModelRef, snapshot: SnapshotRef, duel: Duel) -> dict[str, str]:
    """Collect the tags that people compare in MLflow's lists; the decision is added when it is recorded."""
    return {
        "KID": f"{_kid(duel, 'candidate')} (base {_kid(duel, 'base')})",
        "images": f"{snapshot.train_count} trained on, {snapshot.held_out_count} held out",
        "base": base.name,
    }


def _kid(duel: Duel, contestant: ContestantName) -> str:
    estimate = duel.scores[contestant].metrics.get("kid") if contestant in duel.scores else None
    return METRICS["kid"].number(estimate.value) if estimate else "missing"


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
        family=find_layout(base.folder).name,
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


def _scores(duel: Duel) -> dict[str, float]:
    """Select the scores by which people sort runs; duel.json has all scores with their intervals."""
    estimates = {
        f"{contestant}/{name}": duel.scores[contestant].metrics.get(name)
        for contestant, names in METRICS_OF.items()
        if contestant in duel.scores
        for name in names
    }
    return {name: estimate.value for name, estimate in estimates.items() if estimate}
