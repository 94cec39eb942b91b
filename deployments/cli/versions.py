"""`versions`: list the trained adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.history_output import print_history
from deployments.cli.json_output import print_json
from deployments.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from deployments.cli.stores import existing_store, has_store
from deployments.cli.terminal import console, hint, plain

if TYPE_CHECKING:
    from sdlora.records.champions import ChampionHistory, HistoryEntry
    from sdlora.store.removed_files import RemovedFiles


def versions(
    style: Annotated[str | None, typer.Argument(help="Only the versions of this style.", show_default=False)] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Every decision and every change of the champion, the newest first.")
    ] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """List the trained adapters: champion, scores, decisions."""
    histories, removals = _histories(style, home)
    if history:
        print_history(histories, as_json)
    elif as_json:
        latest = [(one, entry) for one in histories for entry in _latest_entries(one)]
        objects = [_version_object(one, entry, removals[one.style].get(entry.version.number)) for one, entry in latest]
        print_json({"versions": objects})
    elif histories:
        _print_versions(histories, removals)
    else:
        console.print(plain(f"No versions yet in {home}. Train one: sdlora demo"))


def _histories(style: str | None, home: Path) -> tuple[list[ChampionHistory], Mapping[str, Mapping[int, RemovedFiles]]]:
    """Read the histories of one or of all styles, and the versions whose files were removed, by style and number."""
    from sdlora.core.errors import DataError
    from sdlora.store.champions import champion_history, styles_with_history
    from sdlora.store.removed_files import removed_files

    styles: list[str] = []
    histories: list[ChampionHistory] = []
    removals: dict[str, Mapping[int, RemovedFiles]] = {}
    if has_store(home):
        with existing_store(home) as store, store.read() as session:
            styles = styles_with_history(session)
            histories = [champion_history(session, name) for name in styles if style in (None, name)]
            removals = {history.style: removed_files(session, history.style) for history in histories}
    if style is not None and not histories:
        raise DataError(f"No versions of {style!r} in {home}. Styles that have some: {', '.join(styles) or 'none'}.")
    return histories, removals


def _print_versions(histories: list[ChampionHistory], removals: Mapping[str, Mapping[int, RemovedFiles]]) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0))  # so that a row fits into 80 columns
    for heading in ("name", "version", "", "score", "base", "images", "decision", "decided"):
        table.add_column(heading, no_wrap=heading != "decision")
    for history in histories:
        for entry in _latest_entries(history):
            table.add_row(*map(plain, (history.style, *_row(history, entry))))
    console.print(table)
    for history in histories:
        for number, removal in sorted(removals[history.style].items(), reverse=True):
            console.print(plain(f"{history.style} version {number}: {removal}"), soft_wrap=True)
        if history.waiting is not None:
            command = f"sdlora promote {history.style} --version {history.waiting.version.number}"
            hint(f"{history.style} waits for a decision: [bold]{command}[/], or the same with [bold]reject[/]")


def _latest_entries(history: ChampionHistory) -> list[HistoryEntry]:
    """Return the latest entry of each version, the newest version first."""
    entries = {entry.version.number: entry for entry in history.entries}
    return [entries[number] for number in sorted(entries, reverse=True)]


def _version_object(history: ChampionHistory, entry: HistoryEntry, removal: RemovedFiles | None) -> dict[str, object]:
    """Return a version with its scores and the latest decision on it."""
    return {
        "style": history.style,
        **asdict(entry.version),
        "is_champion": _is_champion(history, entry),
        "is_waiting": history.waiting is not None and history.waiting.version.number == entry.version.number,
        "decision": entry.kind,
        "answer": entry.answer,
        "decided_at": entry.decided_at,
        "decided_by": entry.who,
        "reasons": entry.why.splitlines(),
        "duel_digest": entry.duel_digest,
        "files_removed_at": removal and removal.removed_at,
    }


def _is_champion(history: ChampionHistory, entry: HistoryEntry) -> bool:
    return history.champion is not None and history.champion.number == entry.version.number


def _row(history: ChampionHistory, entry: HistoryEntry) -> list[str]:
    from sdlora.records.metrics import METRICS

    version = entry.version
    metric = METRICS[version.metric] if version.metric else None
    numbers = [
        metric.number(score) if metric and score is not None else "?" for score in (version.score, version.base_score)
    ]
    return [
        str(version.number),
        "champion" if _is_champion(history, entry) else "",
        f"{metric.label} {numbers[0]}" if metric else "?",
        numbers[1],
        "unknown" if version.train_count is None else str(version.train_count),
        f"refused, {entry.answer}" if entry.kind == "refused" and entry.answer == "cannot tell" else entry.kind,
        entry.decided_at.astimezone().strftime("%Y-%m-%d"),
    ]
