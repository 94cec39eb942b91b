"""Evidence of a decision: record of the version, files in MLflow, scores, and the champion of the duel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from sdlora.config import ResolvedConfig
from sdlora.core.errors import EvaluationError
from sdlora.core.refs import UNKNOWN_SNAPSHOT, AdapterRef, BaseModelRef, SnapshotRef
from sdlora.models.families.layouts import find_layout
from sdlora.records.adoption import Adoption, load_adoption
from sdlora.records.champions import ScoredVersion
from sdlora.records.choice import CHOICE_FILE, load_choice
from sdlora.records.decision import Decision
from sdlora.records.duel import DUEL_FILE, ContestantName, Duel
from sdlora.records.metrics import METRICS
from sdlora.release.record import Curve, VersionRecord
from sdlora.store.image_store import ImageStore
from tasks.code_version import code_version
from tasks.decisions.champion_reconciliation import LEADING_METRIC, reconcile_history, registered_opponent
from tasks.pages.data_page import LOGGED_FOLDER, data_page_file, logged_data_page
from tasks.pages.data_summary import summarise_data
from tasks.pages.run_page import Link, result_page
from tasks.pages.version_page import REPORT, SUMMARY_PICTURE
from tasks.results import RunRef
from tasks.run_log import run_log
from tasks.tracking import Registry, TrackedRun

METRICS_OF: dict[ContestantName, tuple[str, ...]] = {
    "candidate": ("kid", "fid", "denoising_psnr"),
    "champion": ("kid",),
    "base": ("kid",),
}
SUMMARY_WIDTH_PX = 640  # as wide as a description in MLflow's page, with its other panels open
CURVES = {"training": "loss", "validation": "validation_loss"}


@dataclass(frozen=True)
class Judged:
    """Candidate with everything that it was judged by, as the flow passes it to a task."""

    base: BaseModelRef
    candidate: AdapterRef
    snapshot: SnapshotRef
    duel: Duel
    decision: Decision
    config: ResolvedConfig
    run: RunRef

    @property
    def adoption(self) -> Adoption | None:
        """File that the candidate was adopted from; None for a candidate that was trained."""
        return load_adoption(self.run.folder) if self.candidate.snapshot_digest == UNKNOWN_SNAPSHOT else None

    @property
    def duel_folder(self) -> Path:
        return self.run.duel_folder(self.duel.inputs_digest)


def check_champion(registry: Registry, judged: Judged, home: Path) -> int | None:
    """Check that the duel was run against the champion, and return the champion's number.

    `record_decision` checks the number again, under the write lock.

    Raises:
        EvaluationError: the champion changed after the duel.
    """
    name = judged.config.name
    with ImageStore.open(home) as store:
        history = reconcile_history(registry, store, name)
    opponent = registered_opponent(registry, history, judged.run.digest)
    opponent_digest = opponent.tags["adapter_digest"] if opponent else None
    if opponent_digest != judged.duel.champion_digest:
        raise EvaluationError(
            f"The champion of {name!r} changed during the duel, so the duel does not compare with the new champion. "
            "Run again: only the duel is repeated."
        )
    return history.champion.number if history.champion else None


def scored_version(judged: Judged, number: int, snapshot_digest: str | None, train_count: int | None) -> ScoredVersion:
    """Return the version with the scores of the duel.

    Args:
        number: number in the registry.
        snapshot_digest: snapshot that the adapter was trained on; None if unknown.
        train_count: number of images that it was trained on; None if unknown.
    """
    values = {
        contestant: scores.metrics[LEADING_METRIC].value
        for contestant, scores in judged.duel.scores.items()
        if LEADING_METRIC in scores.metrics
    }
    return ScoredVersion(
        number=number,
        adapter_digest=judged.candidate.digest,
        snapshot_digest=snapshot_digest,
        run_digest=judged.candidate.run_digest,
        train_count=train_count,
        metric=LEADING_METRIC,
        score=values.get("candidate"),
        base_score=values.get("base"),
    )


def version_record(
    judged: Judged, tracked: TrackedRun | None, number: int, home: Path, *, is_champion: bool = False
) -> VersionRecord:
    """Collect the record of a version for its report.

    Args:
        tracked: run of the training, for the curves; None without one.
        is_champion: the version is the champion already.
    """
    points = {name: tracked.curve(metric) for name, metric in CURVES.items()} if tracked else {}
    run, config, adoption = judged.run, judged.config, judged.adoption
    # The report goes to others, and no setting of the training made an adopted adapter.
    hidden_sections = {"export", "schedule"} if adoption is None else {"export", "schedule", "training"}
    with ImageStore.open(home) as store:
        data = summarise_data(store.existing_dataset(judged.snapshot.dataset), judged.snapshot.digest)
    return VersionRecord(
        name=config.name,
        version=str(number),
        created=datetime.now(UTC),
        base_name=judged.base.name,
        family=find_layout(judged.base.folder).name,
        duel=judged.duel,
        decision=judged.decision,
        duel_folder=judged.duel_folder,
        adapter_folder=judged.candidate.folder,
        data=data,
        curves=[Curve(name, curve) for name, curve in points.items() if curve],
        choice=load_choice(run.folder),
        samples=run.samples if run.samples.is_file() else None,
        settings=config.model_dump(mode="json", exclude=hidden_sections),
        code_version=code_version(),
        data_page=data_page_file(home, judged.snapshot.dataset, judged.snapshot.digest),
        is_champion=is_champion,
        adoption=adoption,
    )


def log_evidence(tracked: TrackedRun, record: VersionRecord, judged: Judged, report_folder: Path) -> str | None:
    """Log scores, pictures and pages to a run in MLflow; return the path of the logged data page, if any."""
    duel, folder = record.duel, record.duel_folder
    tracked.log_summary(_scores(duel))
    tracked.log_files(*(folder / name for name in (duel.grid, duel.before_after_grid)), folder="images")
    tracked.log_small(folder / duel.before_after_grid, SUMMARY_WIDTH_PX, SUMMARY_PICTURE)
    choice = judged.run.folder / CHOICE_FILE
    tracked.log_files(report_folder / REPORT, folder / DUEL_FILE, *([choice] if choice.is_file() else []))
    if record.data_page is None or not record.data_page.is_file():
        return None
    tracked.log_files(record.data_page, folder=LOGGED_FOLDER)
    return logged_data_page(judged.snapshot)


def show_result(title: str, record: VersionRecord, links: Sequence[Link]) -> None:
    """Write the verdict and the links to the log and the page of the flow run."""
    log = run_log()
    log.info("%s: %s", record.verdict, title)
    for link in links:
        if link.address or link.path:
            log.info("%s: %s", link.label, link.address or link.path)
    log.info("%s", record.consequence)
    page = result_page(
        title, record.verdict, record.consequence, record.decision, record.duel, record.duel_folder, links
    )
    create_markdown_artifact(page, key="result", description=f"{record.verdict}: {title}")


def kid_text(duel: Duel, contestant: ContestantName) -> str:
    """Format the KID of a contestant; "missing" without one."""
    estimate = duel.scores[contestant].metrics.get("kid") if contestant in duel.scores else None
    return METRICS["kid"].number(estimate.value) if estimate else "missing"


def _scores(duel: Duel) -> dict[str, float]:
    """Select the scores by which people sort runs; duel.json has all scores with their intervals."""
    estimates = {
        f"{contestant}/{name}": duel.scores[contestant].metrics.get(name)
        for contestant, names in METRICS_OF.items()
        if contestant in duel.scores
        for name in names
    }
    return {name: estimate.value for name, estimate in estimates.items() if estimate}
