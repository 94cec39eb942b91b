"""Stage 7: publish the adapter with its evidence. A version has one publication, and any number of later decisions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import task

from sdlora.config import ResolvedConfig
from sdlora.core.errors import TakedownError
from sdlora.core.refs import AdapterRef, BaseModelRef, SnapshotRef
from sdlora.records.decision import Decision
from sdlora.records.duel import Duel
from sdlora.release.folder import write_release
from sdlora.store.champions import record_decision
from sdlora.store.image_store import ImageStore
from sdlora.store.lineage import record_version, require_publishable
from tasks.code_version import code_version
from tasks.decisions.champion_reconciliation import sync_mlflow
from tasks.decisions.evidence import (
    Judged,
    check_champion,
    kid_text,
    log_evidence,
    scored_version,
    show_result,
    version_record,
)
from tasks.decisions.later_decision import decide_later
from tasks.decisions.standing import with_standing
from tasks.home import relative_to_home
from tasks.pages.run_page import Link
from tasks.pages.version_page import REPORT, run_description, version_description
from tasks.progress import task_progress
from tasks.results import Release, RunRef
from tasks.retention import return_removed_files
from tasks.retries import RETRIED
from tasks.tracking import AdapterVersion, Registry, tracked_run


@task(name="publish", persist_result=False, **RETRIED)
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
    the champion history. A run that was killed while it published is finished by the next run. The evidence of a
    version whose publishing has ended is never changed: a decision on such a version is added to it.

    Raises:
        EvaluationError: the champion changed after the duel.
        TakedownError: an image of the snapshot was purged; the adapter is removed.
    """
    judged = Judged(base, candidate, snapshot, duel, decision, config, run)
    registry = Registry(home)
    known = registry.find(config.name, adapter_digest=candidate.digest)
    if known is not None and known.published:
        return_removed_files(registry, known, candidate, home)
        registry.restore_release(known, known.as_release(run, new=False).run.release)
        release = decide_later(registry, known, judged, home)
    else:
        release = _publish(registry, judged, home)
    return release.model_copy(update={"inputs": snapshot.inputs})


def _publish(registry: Registry, judged: Judged, home: Path) -> Release:
    report = task_progress()
    base, candidate, snapshot, decision = judged.base, judged.candidate, judged.snapshot, judged.decision
    config, run = judged.config, judged.run
    champion = check_champion(registry, judged, home)
    number = registry.number_of(config.name, candidate.digest)
    with ImageStore.open(home) as store, _removal_at_takedown(store, run), store.read() as session:
        require_publishable(session, config.name, number, snapshot.digest)
    adoption = judged.adoption
    with tracked_run(home, config.name, run.folder, {}, _run_tags(judged)) as tracked:
        record = version_record(judged, tracked, number, home)
        release_folder = write_release(run.release, record)
        report("publish", 1, 3)
        page, data_page = tracked.page, log_evidence(tracked, record, judged, run.release)
        version = registry.register(
            config.name,
            release_folder,
            base.folder,
            notes=_notes(judged, home),
            tags=_tags(judged),
            run_id=tracked.run_id,
        )
        report("publish", 2, 3)
        trained_on = snapshot if adoption is None else None
        scored = scored_version(
            judged,
            version.number,
            trained_on.digest if trained_on else None,
            trained_on.train_count if trained_on else None,
        )
        with ImageStore.open(home) as store:
            with _removal_at_takedown(store, run, registry, version), store.write() as session:
                require_publishable(session, config.name, version.number, snapshot.digest)
                record_version(
                    session, config.name, version.number, candidate.digest, scored.snapshot_digest, snapshot.dataset
                )
                record_decision(
                    session, config.name, scored, decision, champion, adoption.in_words() if adoption else None
                )
            history = sync_mlflow(registry, store, config.name)
        tracked.describe(run_description(page, record.verdict, config.name, version.number, decision))
    registry.describe_version(version, version_description(page, record, snapshot, data_page))
    registry.finish(version)
    report("publish", 3, 3)
    release = Release(
        name=config.name,
        version=version.number,
        new=True,
        promoted=decision.promote,
        answer=decision.answer,
        reasons=decision.reasons,
        run=run,
    )
    links = [
        Link("Report", page.absolute_url(page.file(REPORT)), release.report),
        Link(f"Version {version.number} in MLflow", registry.page_of(version), None),
        Link("Curves and settings", page.absolute_url(page.route), None),
        *([Link("Images", page.absolute_url(page.file(data_page)), release.data_page)] if data_page else []),
    ]
    show_result(f"{release.name} version {release.version}", record, links)
    return with_standing(release, history)


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


def _run_tags(judged: Judged) -> dict[str, str]:
    """Return the tags of a run in MLflow that begins here, because nothing was trained."""
    if judged.adoption is None:
        return {}
    return {
        "base_digest": judged.base.digest,
        "run_digest": judged.run.digest,
        "adopted_file_digest": judged.adoption.sha256,
        "config_digest": judged.config.digest(),
        "code_version": code_version(),
    }


def _notes(judged: Judged, home: Path) -> dict[str, str]:
    """Collect the notes that programs read from the registry; the decision is added when it is recorded."""
    snapshot, config, duel = judged.snapshot, judged.config, judged.duel
    source = relative_to_home(config.base_model.source, home)
    if judged.adoption is None:
        origin = {"snapshot_digest": snapshot.digest, "train_count": str(snapshot.train_count)}
    else:
        origin = {"adopted_file_digest": judged.adoption.sha256, "adoption": judged.adoption.in_words()}
    return {
        **origin,
        "adapter_digest": judged.candidate.digest,
        "base_digest": judged.base.digest,
        "run_digest": judged.candidate.run_digest,
        "config_digest": config.digest(),
        "decision_digest": judged.decision.digest(),
        "code_version": code_version(),
        "base_model": config.base_model.model_copy(update={"source": source}).model_dump_json(),
        "held_out_count": str(snapshot.held_out_count),
        "kid": kid_text(duel, "candidate"),
        "kid_base": kid_text(duel, "base"),
    }


def _tags(judged: Judged) -> dict[str, str]:
    """Collect the tags that people compare in MLflow's lists; the decision is added when it is recorded."""
    duel, snapshot = judged.duel, judged.snapshot
    trained_on = f"{snapshot.train_count} trained on" if judged.adoption is None else "unknown ones trained on"
    return {
        "KID": f"{kid_text(duel, 'candidate')} (base {kid_text(duel, 'base')})",
        "images": f"{trained_on}, {snapshot.held_out_count} held out",
        "base": judged.base.name,
    }
