"""Decision on a version that was published before: added to its evidence, which stays as it was published."""

from __future__ import annotations

import json
from pathlib import Path

from sdlora.core.files import replace_file
from sdlora.records.decision import DECISION_FILE
from sdlora.release.report import write_report
from sdlora.store.champions import record_decision
from sdlora.store.image_store import ImageStore
from tasks.decisions.champion_reconciliation import sync_mlflow
from tasks.decisions.evidence import Judged, check_champion, log_evidence, scored_version, show_result, version_record
from tasks.decisions.standing import with_standing
from tasks.pages.run_page import Link
from tasks.pages.version_page import REPORT, later_decision_line, run_description
from tasks.progress import task_progress
from tasks.results import LaterDecision, Release
from tasks.run_log import run_log
from tasks.tracking import AdapterVersion, Registry, has_run, tracked_run


def decide_later(registry: Registry, version: AdapterVersion, judged: Judged, home: Path) -> Release:
    """Record a decision on a published version; its tags, files and earlier entries of the history stay.

    The same decision again changes nothing. Every step can be repeated.

    Raises:
        EvaluationError: the champion changed after the duel.
    """
    report, name, decision = task_progress(), judged.config.name, judged.decision
    registry.add_run(version, judged.candidate.run_digest)
    if judged.duel.champion_digest == judged.candidate.digest:
        # Other settings gave the champion's own adapter, and the duel compared it with itself.
        run_log().info("The adapter is %s version %d, the champion: there is nothing to decide", name, version.number)
        return version.as_release(judged.run, new=False)
    champion = check_champion(registry, judged, home)
    scored = scored_version(judged, version.number, version.snapshot_digest, version.train_count)
    # An adopted file may be that of an adapter that was trained here.
    adoption = judged.adoption if version.snapshot_digest is None else None
    with ImageStore.open(home) as store:
        with store.write() as session:
            entry = record_decision(
                session, name, scored, decision, champion, adoption.in_words() if adoption else None
            )
        history = sync_mlflow(registry, store, name)
    report("publish", 1, 2)
    if decision.digest() == version.tags.get("decision_digest"):
        release = version.as_release(judged.run, new=True).model_copy(update={"answer": decision.answer})
    else:
        release = _write_evidence(registry, version, judged, home, is_champion=entry.from_version == version.number)
    report("publish", 2, 2)
    return with_standing(release, history)


def _write_evidence(
    registry: Registry, version: AdapterVersion, judged: Judged, home: Path, *, is_champion: bool
) -> Release:
    """Write the report of the decision, and a record of its own in MLflow; the file of the decision marks the end."""
    name, decision = judged.config.name, judged.decision
    title = f"{name} version {version.number}"
    record = version_record(judged, None, version.number, home, is_champion=is_champion)
    folder = judged.run.decision_folder(decision.digest())
    written = (folder / DECISION_FILE).is_file() and has_run(home, folder)
    tags = {
        "mlflow.runName": f"{name}-{version.number}-duel-{decision.digest()[:8]}",
        "snapshot_digest": judged.snapshot.digest,
        "duel_digest": decision.duel_digest,
        "decision_digest": decision.digest(),
    }
    with tracked_run(home, name, folder, {}, tags) as tracked:
        page = tracked.page
        if not written:
            write_report(folder, record)
            log_evidence(tracked, record, judged, folder)
            tracked.describe(run_description(page, record.verdict, name, version.number, decision))
            registry.extend_description(version, later_decision_line(page, record.verdict, record.created, decision))
            text = json.dumps(decision.model_dump(mode="json"), indent=1)
            replace_file(folder / DECISION_FILE, f"{text}\n".encode())
    release = Release(
        name=name,
        version=version.number,
        new=True,
        promoted=decision.promote,
        answer=decision.answer,
        reasons=decision.reasons,
        run=judged.run,
        later=LaterDecision(duel=record.duel_folder, record=folder, verdict=record.verdict),
    )
    links = [
        Link("Report", page.absolute_url(page.file(REPORT)), release.report),
        Link(f"Version {version.number} in MLflow", registry.page_of(version), None),
    ]
    show_result(f"{title}, judged again", record, links)
    return release
