"""Champion history of a style as plain values: versions with their scores, entries, the question to a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from sdlora.records.decision import Answer

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
