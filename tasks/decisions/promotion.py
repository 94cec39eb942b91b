"""Decisions of people on the champion: promote, reject, roll back. Plain functions for the terminal, tasks for flows.

Each decision is one entry of the champion history, added in a transaction that checks the history that was read
before. MLflow's alias and the exported file follow the entry.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact

from sdlora.core.config_base import FrozenConfig
from sdlora.core.errors import ConfigError, EvaluationError
from sdlora.core.quoting import escaped
from sdlora.records.champions import ChampionHistory, HistoryEntry, Question, ScoredVersion, Verdict
from sdlora.records.export import ExportRecord
from sdlora.store.champions import record_manual_change, record_verdict, styles_with_history
from sdlora.store.image_store import ImageStore
from sdlora.store.lineage import require_usable
from tasks.decisions.champion_reconciliation import reconcile_history, scored_of_registry, sync_mlflow
from tasks.decisions.standing import void_reason, why_void
from tasks.export import export_again
from tasks.lock import CLEAN_UP_SECONDS, run_lock
from tasks.pages.markdown import markdown_text
from tasks.run_log import run_log
from tasks.tracking import Registry, has_records

UNNAMED = "a person in Prefect"
"""Person of a decision whose form left the name empty."""


class ChampionDecision(FrozenConfig):
    """Decision of a person on the champion of a style.

    Attributes:
        kind: kind of the entry in the champion history.
        version: version that was decided on.
        champion: number of the champion now; None without one.
        champion_before: number of the champion before; None without one.
        export: the champion's file for a drawing tool; None if nothing is exported.
    """

    style: str
    kind: str
    version: int
    champion: int | None
    champion_before: int | None
    who: str
    why: str
    decided_at: datetime
    export: ExportRecord | None = None


def promote_version(
    name: str, version: int | None, who: str, why: str, home: Path, question: Question | None = None
) -> ChampionDecision:
    """Make a version the champion: the one that waits, or one whose duel was against the present champion.

    Args:
        version: number of the version; None: the one that waits.
        question: what the person was asked; the decision is void if another question is open now.

    Raises:
        ConfigError: the style or the version does not exist, or no version waits.
        EvaluationError: the version is the champion, or its duel is void.
        TakedownError: a training image of the version was purged.
        WeightsError: the adapter is damaged.
    """
    with ImageStore.open(home) as store, run_lock(home, CLEAN_UP_SECONDS):  # a clean-up may delete the version
        registry, history = _open(store, name, home)
        candidate = _candidate(registry, history, version, question)
        _require_valid_duel(history, candidate)
        _require_adapter(registry, store, history, candidate.number, home)
        entry = _record(store, history, "promoted", candidate, who, why)
        sync_mlflow(registry, store, name)
    return _finished(entry, name, export_again(name, home))


def reject_version(
    name: str, version: int | None, who: str, why: str, home: Path, question: Question | None = None
) -> ChampionDecision:
    """Decline the version that waits: it stays a candidate with its evidence, and the champion stays.

    The arguments are those of `promote_version`.

    Raises:
        ConfigError: the style does not exist, or no such version waits.
        EvaluationError: the decision is void.
    """
    with ImageStore.open(home) as store, run_lock(home, CLEAN_UP_SECONDS):  # a clean-up may delete the version
        registry, history = _open(store, name, home)
        candidate = _candidate(registry, history, version, question)
        if history.waiting is None or history.waiting.version.number != candidate.number:
            raise ConfigError(f"Version {candidate.number} of {name!r} does not wait for a decision. {_waits(history)}")
        entry = _record(store, history, "rejected", candidate, who, why)
        sync_mlflow(registry, store, name)
    return _finished(entry, name, None)


def roll_back(name: str, to: int | None, who: str, why: str, home: Path) -> ChampionDecision:
    """Make an earlier version the champion again, whatever its duel was; without `to`, the champion before this one.

    Raises:
        ConfigError: the style or the version does not exist, or there was no earlier champion.
        EvaluationError: the version is the champion already, or the champion changed meanwhile.
        TakedownError: a training image of the version was purged.
        WeightsError: the adapter is damaged.
    """
    with ImageStore.open(home) as store, run_lock(home, CLEAN_UP_SECONDS):  # a clean-up may delete the version
        registry, history = _open(store, name, home)
        target = history.previous_champion if to is None else _registered(registry, history, to)
        if target is None:
            champion = f"version {history.champion.number}" if history.champion else "none"
            raise ConfigError(
                f"{name!r} has no earlier champion (champion: {champion}). Name a version: sdlora rollback {name} "
                "--to N"
            )
        if history.champion and history.champion.number == target.number:
            raise EvaluationError(f"Version {target.number} of {name!r} is the champion already.")
        _require_adapter(registry, store, history, target.number, home)
        with store.write() as session:
            entry = record_manual_change(session, history, "rolled back", target, who, why)
        if entry is None:
            raise _changed(name)
        sync_mlflow(registry, store, name)
    return _finished(entry, name, export_again(name, home))


@task(name="promote", persist_result=False)
def promote_candidate(name: str, version: int | None, who: str, why: str, home: Path) -> ChampionDecision:
    """Promote as a step of a flow, with a note on its page."""
    return show_decision(promote_version(name, version, who or UNNAMED, why, home))


@task(name="reject", persist_result=False)
def reject_candidate(name: str, version: int | None, who: str, why: str, home: Path) -> ChampionDecision:
    """Reject as a step of a flow, with a note on its page."""
    return show_decision(reject_version(name, version, who or UNNAMED, why, home))


@task(name="roll back", persist_result=False)
def roll_back_champion(name: str, to: int | None, who: str, why: str, home: Path) -> ChampionDecision:
    """Roll back as a step of a flow, with a note on its page."""
    return show_decision(roll_back(name, to, who or UNNAMED, why, home))


def show_decision(decision: ChampionDecision) -> ChampionDecision:
    """Put a note about the decision on the page of the flow run."""
    title = f"{decision.style} version {decision.version}: {decision.kind}"
    champion = f"version {decision.champion}" if decision.champion is not None else "none"
    lines = [
        f"## {markdown_text(title)}",
        f"By {markdown_text(decision.who)}. Champion now: {champion}.",
        markdown_text(decision.why),
    ]
    create_markdown_artifact("\n\n".join(lines), key="decision", description=title)
    return decision


def _open(store: ImageStore, name: str, home: Path) -> tuple[Registry, ChampionHistory]:
    """Open the registry and read the history, with changes that a person made in MLflow."""
    with store.read() as session:
        styles = styles_with_history(session)
    if name not in styles or not has_records(home):
        raise ConfigError(
            f"There are no versions of {escaped(name)!r} in {home}. Styles that have some: "
            f"{', '.join(styles) or 'none'}."
        )
    registry = Registry(home)
    return registry, reconcile_history(registry, store, name)


def _candidate(
    registry: Registry, history: ChampionHistory, version: int | None, question: Question | None
) -> ScoredVersion:
    if question is not None and question != history.question:
        raise EvaluationError(
            f"The decision on version {question.version} of {history.style!r} is void: {why_void(history, question)}."
        )
    if version is None and history.waiting is None:
        raise ConfigError(f"No version of {history.style!r} waits for a decision. Name one: --version N")
    if version is None and history.waiting is not None:
        version = history.waiting.version.number
    assert version is not None
    return _registered(registry, history, version)


def _registered(registry: Registry, history: ChampionHistory, number: int) -> ScoredVersion:
    version = registry.get(history.style, number)
    if version is None or not version.published:
        numbers = [str(one.number) for one in registry.versions(history.style) if one.published]
        raise ConfigError(
            f"There is no version {number} of {history.style!r}. Versions: {', '.join(reversed(numbers)) or 'none'}."
        )
    return scored_of_registry(version, history)


def _require_valid_duel(history: ChampionHistory, candidate: ScoredVersion) -> None:
    """Refuse a promotion on the evidence of a duel against another champion than the present one."""
    judged = history.decision_of_gate(candidate.number)
    champion = history.champion
    if judged is None or (champion and champion.number == candidate.number):
        return
    opponent = history.champion_before(judged.number)
    if (opponent and opponent.number) != (champion and champion.number):
        reason = void_reason(history, judged) or "its duel was against another champion"
        raise EvaluationError(
            f"The decision on version {candidate.number} of {history.style!r} is void: {reason}. Judge it again: "
            f"sdlora run {history.style} --force. To make it the champion without a duel: sdlora rollback "
            f"{history.style} --to {candidate.number}"
        )


def _require_adapter(registry: Registry, store: ImageStore, history: ChampionHistory, number: int, home: Path) -> None:
    """Refuse a version that cannot be used: purged images, damaged files."""
    with store.read() as session:
        require_usable(session, history.style, number)
    version = registry.get(history.style, number)
    assert version is not None
    registry.fetch(version, home)


def _record(
    store: ImageStore, history: ChampionHistory, verdict: Verdict, candidate: ScoredVersion, who: str, why: str
) -> HistoryEntry:
    with store.write() as session:
        entry = record_verdict(session, history, verdict, candidate, who, why)
    if entry is None:
        raise _changed(history.style)
    return entry


def _changed(name: str) -> EvaluationError:
    return EvaluationError(
        f"The decision is void: another decision on {name!r} was made at the same moment. Look at it with `sdlora "
        f"versions {name} --history`, and decide again."
    )


def _waits(history: ChampionHistory) -> str:
    waiting = history.waiting
    return f"Version {waiting.version.number} does." if waiting else "No version does."


def _finished(entry: HistoryEntry, name: str, export: ExportRecord | None) -> ChampionDecision:
    outcome = ChampionDecision(
        style=name,
        kind=entry.kind,
        version=entry.version.number,
        champion=entry.to_version,
        champion_before=entry.from_version,
        who=entry.who,
        why=entry.why,
        decided_at=entry.decided_at,
        export=export,
    )
    run_log().info("%s version %d: %s by %s", name, outcome.version, outcome.kind, escaped(outcome.who))
    return outcome
