"""`versions`: list the trained adapters."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.json_output import print_json
from deployments.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from deployments.cli.stores import existing_store, has_store
from deployments.cli.terminal import console, plain

if TYPE_CHECKING:
    from sdlora.store.champions import ChampionHistory, HistoryEntry
    from sdlora.store.removed_files import RemovedFiles


def versions(
    style: Annotated[str | None, typer.Argument(help="Only the versions of this style.", show_default=False)] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """List the trained adapters: champion, scores, decisions."""
    from rich.table import Table

    from sdlora.core.errors import DataError
    from sdlora.store.champions import champion_history, styles_with_history
    from sdlora.store.removed_files import removed_files

    styles: list[str] = []
    histories: list[ChampionHistory] = []
    removals: dict[str, dict[int, RemovedFiles]] = {}
    if has_store(home):
        with existing_store(home) as store, store.read() as session:
            styles = styles_with_history(session)
            histories = [champion_history(session, name) for name in styles if style in (None, name)]
            removals = {history.style: removed_files(session, history.style) for history in histories}
    if style is not None and not histories:
        raise DataError(f"No versions of {style!r} in {home}. Styles that have some: {', '.join(styles) or 'none'}.")
    if as_json:
        latest = [(history, entry) for history in histories for entry in _latest_entries(history)]
        objects = [
            _version_object(history, entry, removals[history.style].get(entry.version.number))
            for history, entry in latest
        ]
        print_json({"versions": objects})
        return
    if not histories:
        console.print(plain(f"No versions yet in {home}. Train one: sdlora demo"))
        return
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


def _latest_entries(history: ChampionHistory) -> list[HistoryEntry]:
    """Return the latest entry of each version, the newest version first."""
    entries = {entry.version.number: entry for entry in history.entries}
    return [entries[number] for number in sorted(entries, reverse=True)]


def _version_object(history: ChampionHistory, entry: HistoryEntry, removal: RemovedFiles | None) -> dict[str, object]:
    """Return a version with its scores and the latest decision on it."""
    return {
        "style": history.style,
        **asdict(entry.version),
        "is_champion": history.champion == entry.version,
        "decision": entry.kind,
        "decided_at": entry.decided_at,
        "decided_by": entry.who,
        "reasons": entry.why.splitlines(),
        "duel_digest": entry.duel_digest,
        "files_removed_at": removal and removal.removed_at,
    }


def _row(history: ChampionHistory, entry: HistoryEntry) -> list[str]:
    from sdlora.records.metrics import METRICS

    version = entry.version
    metric = METRICS[version.metric] if version.metric else None
    numbers = [
        metric.number(score) if metric and score is not None else "?" for score in (version.score, version.base_score)
    ]
    return [
        str(version.number),
        "champion" if history.champion == version else "",
        f"{metric.label} {numbers[0]}" if metric else "?",
        numbers[1],
        "unknown" if version.train_count is None else str(version.train_count),
        entry.kind,
        entry.decided_at.astimezone().strftime("%Y-%m-%d"),
    ]
