"""History of each style's champion: every decision of the gate and every change of the champion, oldest first."""

from __future__ import annotations

from typing import cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from sdlora.core.errors import EvaluationError
from sdlora.records.champions import (
    GATE,
    ChampionHistory,
    EntryKind,
    HistoryEntry,
    ManualChange,
    ScoredVersion,
    Verdict,
)
from sdlora.records.decision import Answer, Decision
from sdlora.store.tables.versions import ChampionHistoryTable


def styles_with_history(session: Session) -> list[str]:
    """List the styles with at least one entry, sorted by name."""
    return sorted(session.scalars(select(ChampionHistoryTable.style).distinct()))


def waiting_versions(session: Session) -> dict[str, int]:
    """Return the number of the version that waits for a person, by style; styles without one are left out."""
    histories = (champion_history(session, style) for style in styles_with_history(session))
    return {history.style: history.waiting.version.number for history in histories if history.waiting}


def champion_history(session: Session, style: str) -> ChampionHistory:
    """Read the whole history of a style."""
    statement = (
        select(ChampionHistoryTable).where(ChampionHistoryTable.style == style).order_by(ChampionHistoryTable.number)
    )
    return ChampionHistory(style, tuple(map(_entry, session.scalars(statement))))


def record_decision(
    session: Session,
    style: str,
    version: ScoredVersion,
    decision: Decision,
    expected_champion: int | None,
    adoption: str | None = None,
) -> HistoryEntry:
    """Record the gate's decision on a version and the resulting champion.

    Repeating a decision returns the recorded entry. The second of two concurrent promotions sees the first, because
    `session` holds the write lock.

    Args:
        expected_champion: number of the champion that the duel was fought against; None without one.
        adoption: file that the adapter was adopted from, by whom and why; None for a trained adapter.

    Raises:
        EvaluationError: the champion changed after the duel.
    """
    history = champion_history(session, style)
    recorded = history.entry_of_decision(decision.digest())
    if recorded is not None:
        return recorded
    current = history.champion.number if history.champion else None
    if current != expected_champion:
        raise EvaluationError(
            f"The champion of {style!r} changed during the duel: {_version_label(expected_champion)} before, "
            f"{_version_label(current)} now. Version {version.number} stays a candidate. Run again: only the duel is "
            "repeated."
        )
    kind: EntryKind = "refused"
    if current is not None and current == version.number:
        kind = "confirmed" if decision.answer == "better" else "not confirmed"
    elif decision.promote:
        kind = "adopted" if adoption else "first champion" if current is None else "promoted"
    elif decision.waits:
        kind = "waiting"
    why = "\n".join([*([adoption] if adoption else []), *decision.reasons])
    row = _row(history, kind, version, version.number if decision.promote else current, GATE, why)
    row.duel_digest, row.decision_digest, row.answer = decision.duel_digest, decision.digest(), decision.answer
    return _insert(session, row)


def record_verdict(
    session: Session, expected: ChampionHistory, verdict: Verdict, version: ScoredVersion, who: str, why: str
) -> HistoryEntry | None:
    """Record a person's decision on a candidate, with the digests of the gate's newest decision on the candidate.

    Args:
        session: session that holds the write lock.
        expected: history that the caller read before; the decision is recorded only if no entry was added since.

    Returns:
        The new entry; None if the history has new entries, so the caller has to read it again.

    Raises:
        EvaluationError: the version is the champion already.
    """
    history = champion_history(session, expected.style)
    if history.length != expected.length:
        return None
    champion = history.champion
    if champion is not None and champion.number == version.number:
        raise EvaluationError(f"Version {version.number} of {expected.style!r} is the champion already.")
    kind: EntryKind = "first champion" if verdict == "promoted" and champion is None else verdict
    to_version = version.number if verdict == "promoted" else champion.number if champion else None
    row = _row(history, kind, version, to_version, who, why)
    judged = history.decision_of_gate(version.number)
    if judged is not None:
        row.duel_digest, row.decision_digest = judged.duel_digest, judged.decision_digest
    return _insert(session, row)


def record_manual_change(
    session: Session, expected: ChampionHistory, kind: ManualChange, version: ScoredVersion | None, who: str, why: str
) -> HistoryEntry | None:
    """Record that a person made `version` the champion or, with None, removed the champion.

    Args:
        session: session that holds the write lock.
        expected: history that the caller read before; the change is recorded only if no entry was added since.

    Returns:
        The new entry; None if the history has new entries, so the caller has to read it again.

    Raises:
        EvaluationError: the style has no champion to remove.
    """
    history = champion_history(session, expected.style)
    if history.length != expected.length:
        return None
    subject = version or history.champion
    if subject is None:
        raise EvaluationError(f"{expected.style!r} has no champion that could be removed.")
    return _insert(session, _row(history, kind, subject, version.number if version else None, who, why))


def _row(
    history: ChampionHistory, kind: EntryKind, version: ScoredVersion, to_version: int | None, who: str, why: str
) -> ChampionHistoryTable:
    return ChampionHistoryTable(
        style=history.style,
        number=history.length + 1,
        kind=kind,
        version=version.number,
        from_version=history.champion.number if history.champion else None,
        to_version=to_version,
        who=who,
        why=why,
        adapter_digest=version.adapter_digest,
        snapshot_digest=version.snapshot_digest,
        run_digest=version.run_digest,
        train_count=version.train_count,
        metric=version.metric,
        score=version.score,
        base_score=version.base_score,
    )


def _insert(session: Session, row: ChampionHistoryTable) -> HistoryEntry:
    session.add(row)
    session.flush()
    return _entry(row)


def _entry(row: ChampionHistoryTable) -> HistoryEntry:
    version = ScoredVersion(
        number=row.version,
        adapter_digest=row.adapter_digest,
        snapshot_digest=row.snapshot_digest,
        run_digest=row.run_digest,
        train_count=row.train_count,
        metric=row.metric,
        score=row.score,
        base_score=row.base_score,
    )
    return HistoryEntry(
        number=row.number,
        kind=cast("EntryKind", row.kind),
        version=version,
        from_version=row.from_version,
        to_version=row.to_version,
        who=row.who,
        why=row.why,
        decided_at=row.decided_at,
        duel_digest=row.duel_digest,
        decision_digest=row.decision_digest,
        answer=cast("Answer | None", row.answer),
    )


def _version_label(number: int | None) -> str:
    return "none" if number is None else f"version {number}"
