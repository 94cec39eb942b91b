"""Output of `versions --history`: the champion history of styles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deployments.cli.json_output import print_json
from deployments.cli.terminal import console, plain

if TYPE_CHECKING:
    from sdlora.records.champions import ChampionHistory, HistoryEntry


def print_history(histories: Sequence[ChampionHistory], as_json: bool) -> None:
    """Print every entry, the newest first: time, decision, champion, person and reason."""
    if as_json:
        print_json({"entries": [_object(one, entry) for one in histories for entry in reversed(one.entries)]})
        return
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0))
    for heading in ("on", "style", "version", "decision", "champion", "by", "why"):
        table.add_column(heading, no_wrap=heading not in ("decision", "why"))
    for history in histories:
        for entry in reversed(history.entries):
            table.add_row(*map(plain, _row(history, entry)))
    console.print(table)


def _row(history: ChampionHistory, entry: HistoryEntry) -> list[str]:
    return [
        entry.decided_at.astimezone().strftime("%Y-%m-%d %H:%M"),
        history.style,
        str(entry.version.number),
        _decision(history, entry),
        _champion(entry),
        entry.who,
        next(iter(entry.why.splitlines()), ""),
    ]


def _decision(history: ChampionHistory, entry: HistoryEntry) -> str:
    if entry.kind == "waiting":
        return f"waiting ({entry.answer})" if entry == history.waiting else f"waited ({entry.answer})"
    return f"{entry.kind} (cannot tell)" if entry.answer == "cannot tell" else entry.kind


def _champion(entry: HistoryEntry) -> str:
    """Describe the champion after the entry: `2`, or `1 → 2` if the entry changed it."""
    before, after = ("none" if number is None else str(number) for number in (entry.from_version, entry.to_version))
    return f"{before} → {after}" if entry.changes_champion else after


def _object(history: ChampionHistory, entry: HistoryEntry) -> dict[str, object]:
    return {
        "style": history.style,
        "number": entry.number,
        "version": entry.version.number,
        "decision": entry.kind,
        "answer": entry.answer,
        "is_waiting": entry == history.waiting,
        "from_version": entry.from_version,
        "to_version": entry.to_version,
        "decided_at": entry.decided_at,
        "decided_by": entry.who,
        "why": entry.why,
        "adapter_digest": entry.version.adapter_digest,
        "duel_digest": entry.duel_digest,
        "decision_digest": entry.decision_digest,
    }
