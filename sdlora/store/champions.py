"""History of each style's champion: every decision of the gate and every change of the champion, oldest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from sdlora.core.errors import EvaluationError
from sdlora.records.decision import Answer, Decision
from sdlora.store.tables.versions import ChampionHistoryTable

ManualChange = Literal["rolled back", "moved by hand"]
Verdict = Literal["promoted", "rejected"]
"""Decision of a person on a candidate."""
EntryKind = (
    Literal["first champion", "promoted", "adopted", "confirmed", "not confirmed", "refused", "waiting"]
    | Verdict
    | ManualChange
)
"""Kind of an entry. "adopted": an adapter from a file passed the gate and became champion. "confirmed": the champion
passed the gate again. "not confirmed": the champion did not pass it again and stays champion. "refused": the version
stays a candidate. "waiting": a person decides on the version. "rejected": a person decided that the version stays a
candidate."""

GATE = "gate"
"""Value of `who` for decisions of the gate."""


@dataclass(frozen=True)
class ScoredVersion:
    """Version of a style with its digests and scores.

    Attributes:
        number: number of the version in the registry.
        snapshot_digest: None if the images of the training are unknown. The same holds for `train_count`.
        run_digest: inputs of the training, or of the conversion of an adopted file; None if not recorded.
        metric: name of the leading metric in `sdlora.records.metrics.METRICS`; None if nothing was measured.
        score: value of the metric for the version.
        base_score: value of the metric for the base model without an adapter.
    """

    number: int
    adapter_digest: str
    snapshot_digest: str | None = None
    run_digest: str | None = None
    train_count: int | None = None
    metric: str | None = None
    score: float | None = None
    base_score: float | None = None


@dataclass(frozen=True)
class HistoryEntry:
    """Decision on a version, or change of the champion by a person.

    Attributes:
        number: position in the history of the style, from 1.
        version: version that the decision is about.
        from_version: number of the previous champion; None without one.
        to_version: number of the new champion; equals `from_version` if the champion stayed.
        answer: answer of the gate; None if a person made the change or decided.
        duel_digest: duel that was decided on; None without one. The same holds for `decision_digest`. A person's
            decision has those of the gate's decision on the same version.
    """

    number: int
    kind: EntryKind
    version: ScoredVersion
    from_version: int | None
    to_version: int | None
    who: str
    why: str
    decided_at: datetime
    duel_digest: str | None = None
    decision_digest: str | None = None
    answer: Answer | None = None

    @property
    def changes_champion(self) -> bool:
        """True if the entry changed the champion of the style."""
        return self.from_version != self.to_version

    @property
    def is_by_gate(self) -> bool:
        """True if the gate decided, also if it left the decision to a person."""
        return self.who == GATE and self.decision_digest is not None

    @property
    def passed_gate(self) -> bool | None:
        """True if the version passed the gate, False if it was refused; None if a person decides or decided."""
        if not self.is_by_gate or self.kind == "waiting":
            return None
        return self.kind not in ("refused", "not confirmed")


@dataclass(frozen=True)
class Question:
    """Decision that a person is asked for, with the digests of everything that the answer is about.

    Attributes:
        version: number of the candidate.
        champion_digest: adapter of the champion at the time; None without one.
    """

    style: str
    version: int
    candidate_digest: str
    duel_digest: str
    champion_digest: str | None


@dataclass(frozen=True)
class ChampionHistory:
    """Entries of one style, oldest first; empty before the first decision."""

    style: str
    entries: Sequence[HistoryEntry] = field(default=())

    @property
    def length(self) -> int:
        """Number of entries, which is the number of the newest entry."""
        return len(self.entries)

    @property
    def champion(self) -> ScoredVersion | None:
        """Version in use; None without a champion."""
        number = self.entries[-1].to_version if self.entries else None
        return self.version(number) if number is not None else None

    @property
    def champion_changes(self) -> Sequence[HistoryEntry]:
        """Entries that changed the champion, oldest first."""
        return [entry for entry in self.entries if entry.changes_champion]

    @property
    def waiting(self) -> HistoryEntry | None:
        """Entry of the candidate that waits for a person's decision; None without one.

        A candidate waits no longer after a person's or the gate's next decision on it, after a change of the champion,
        and after the entry of a newer candidate that waits.
        """
        decided: set[int] = set()
        for entry in reversed(self.entries):
            if entry.changes_champion:
                return None
            if entry.kind == "waiting":
                return None if entry.version.number in decided else entry
            decided.add(entry.version.number)
        return None

    @property
    def question(self) -> Question | None:
        """Question about the candidate that waits; None without one."""
        entry = self.waiting
        if entry is None:
            return None
        champion = self.champion
        return Question(
            style=self.style,
            version=entry.version.number,
            candidate_digest=entry.version.adapter_digest,
            duel_digest=entry.duel_digest or "",
            champion_digest=champion.adapter_digest if champion else None,
        )

    @property
    def previous_champion(self) -> ScoredVersion | None:
        """Version that a rollback makes the champion; None without one.

        Rollbacks go further and further back: after a rollback from 3 to 2, the previous champion is 1 and not 3.
        """
        line: list[int] = []
        for entry in self.champion_changes:
            if entry.to_version is None:
                continue
            if entry.to_version in line:
                del line[line.index(entry.to_version) :]
            line.append(entry.to_version)
        if self.champion is not None and line:
            line.pop()
        return self.version(line[-1]) if line else None

    def decision_of_gate(self, number: int) -> HistoryEntry | None:
        """Return the newest decision of the gate on a version; None without one."""
        mine = (entry for entry in reversed(self.entries) if entry.version.number == number)
        return next((entry for entry in mine if entry.is_by_gate), None)

    def champion_before(self, number: int) -> ScoredVersion | None:
        """Return the champion before the entry of this number; None without one."""
        from_version = self.entries[number - 1].from_version
        return self.version(from_version) if from_version is not None else None

    def version(self, number: int) -> ScoredVersion | None:
        """Return the newest record of a version; None without an entry of this version."""
        return next((entry.version for entry in reversed(self.entries) if entry.version.number == number), None)

    def opponent(self, run_digest: str) -> ScoredVersion | None:
        """Return the version that the adapter of a run has to beat in the duel.

        If the adapter is the champion already, its publishing was interrupted or it is judged again. The opponent is
        then the previous champion.
        """
        champion = self.champion
        if champion is None or not self._is_from_run(champion, run_digest):
            return champion
        previous = self.champion_changes[-1].from_version
        return self.version(previous) if previous is not None else None

    def _is_from_run(self, version: ScoredVersion, run_digest: str) -> bool:
        """Return True if the run gave the version's adapter. Runs with different settings may give equal adapters."""
        versions = (entry.version for entry in self.entries if entry.version.number == version.number)
        return any(one.run_digest == run_digest for one in versions)

    def entry_of_decision(self, decision_digest: str) -> HistoryEntry | None:
        """Return the entry of a decision, if it still holds.

        None if the decision is not recorded, or if a later entry changed the champion. The decision must then be
        recorded again.
        """
        for entry in reversed(self.entries):
            if entry.decision_digest == decision_digest:
                return entry
            if entry.changes_champion:
                return None
        return None


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
