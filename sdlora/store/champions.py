"""The history of each style's champion: every decision of the gate and every move, in the order they were made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from sdlora.core.errors import EvaluationError
from sdlora.records.decision import Decision
from sdlora.store.tables import ChampionHistoryTable

Move = Literal["rolled back", "moved by hand"]
EntryKind = Literal["first champion", "promoted", "confirmed", "refused"] | Move
"""What a row says. "confirmed" is a champion that passed the gate once more; "refused" stays a candidate."""

GATE = "gate"
"""Who decided, where no person did."""


@dataclass(frozen=True)
class ScoredVersion:
    """A version as the history knows it.

    Attributes:
        number: its number in the registry.
        snapshot_digest: None, like `run_digest` and `train_count`, of an adapter whose training is not known.
        metric: the leading metric's name in `sdlora.records.metrics.METRICS`; `score` and `base_score`, the bare base
            model's, are its values. None where nothing was measured.
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
    """One decision or move.

    Attributes:
        number: counts from 1 within the style.
        version: what was decided on.
        from_version: the champion's number before; None without one.
        to_version: the champion's number afterwards, the same where the champion stayed.
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

    @property
    def changes_champion(self) -> bool:
        """Whether the style has another champion since."""
        return self.from_version != self.to_version

    @property
    def promoted(self) -> bool | None:
        """The gate's answer; None where the gate was not asked."""
        return None if self.decision_digest is None else self.kind != "refused"


@dataclass(frozen=True)
class ChampionHistory:
    """All entries of one style, oldest first; empty for a style of which nothing was decided yet."""

    style: str
    entries: Sequence[HistoryEntry] = field(default=())

    @property
    def length(self) -> int:
        """The newest entry's number."""
        return len(self.entries)

    @property
    def champion(self) -> ScoredVersion | None:
        """The version in use."""
        number = self.entries[-1].to_version if self.entries else None
        return self.version(number) if number is not None else None

    @property
    def moves(self) -> Sequence[HistoryEntry]:
        """The entries that changed the champion."""
        return [entry for entry in self.entries if entry.changes_champion]

    def version(self, number: int) -> ScoredVersion | None:
        """What was last recorded of a version."""
        return next((entry.version for entry in reversed(self.entries) if entry.version.number == number), None)

    def opponent(self, run_digest: str) -> ScoredVersion | None:
        """The version that the adapter of a run has to beat.

        If that adapter is the champion itself, publishing was interrupted or is repeated: its rival is the champion
        before it.
        """
        champion = self.champion
        if champion is None or champion.run_digest != run_digest:
            return champion
        previous = self.moves[-1].from_version
        return self.version(previous) if previous is not None else None

    def entry_of_decision(self, decision_digest: str) -> HistoryEntry | None:
        """The entry of this decision, unless the champion has moved since: then the decision would be a new one."""
        for entry in reversed(self.entries):
            if entry.decision_digest == decision_digest:
                return entry
            if entry.changes_champion:
                return None
        return None


def styles_with_history(session: Session) -> list[str]:
    """The styles of which something was decided, by name."""
    return sorted(session.scalars(select(ChampionHistoryTable.style).distinct()))


def champion_history(session: Session, style: str) -> ChampionHistory:
    """All that was decided of a style's champion."""
    statement = (
        select(ChampionHistoryTable).where(ChampionHistoryTable.style == style).order_by(ChampionHistoryTable.number)
    )
    return ChampionHistory(style, tuple(map(_entry, session.scalars(statement))))


def record_decision(
    session: Session, style: str, version: ScoredVersion, decision: Decision, champion: int | None
) -> HistoryEntry:
    """Record the gate's decision on a version, and the champion that follows from it.

    The same decision again gives the entry that is there. `session` holds the write lock: of two promotions at once,
    the second sees the first.

    Args:
        champion: the champion's number when the duel was fought; None without one.

    Raises:
        EvaluationError: another version is champion now.
    """
    history = champion_history(session, style)
    recorded = history.entry_of_decision(decision.digest())
    if recorded is not None:
        return recorded
    current = history.champion.number if history.champion else None
    if current != champion:
        raise EvaluationError(
            f"The champion of {style!r} changed while the duel was fought: {_version_label(champion)} before, "
            f"{_version_label(current)} now. Version {version.number} stays a candidate. Run again: only the duel is "
            "repeated."
        )
    kind: EntryKind = "refused"
    if decision.promote:
        kind = "first champion" if current is None else "confirmed" if current == version.number else "promoted"
    row = _row(
        history, kind, version, version.number if decision.promote else current, GATE, "\n".join(decision.reasons)
    )
    row.duel_digest, row.decision_digest = decision.duel_digest, decision.digest()
    return _insert(session, row)


def record_move(
    session: Session, expected: ChampionHistory, kind: Move, version: ScoredVersion | None, who: str, why: str
) -> HistoryEntry | None:
    """Record that a person made `version` the champion, or that there is none any more.

    Args:
        seen: the history that the move rests on. `session` holds the write lock.

    Returns:
        The new entry; None if the history went on meanwhile, so that the move has to be looked at again.

    Raises:
        EvaluationError: there is no champion that could go.
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
    )


def _version_label(number: int | None) -> str:
    return "none" if number is None else f"version {number}"
