"""`versions`: list the trained adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.options import DEFAULT_HOME, HomeOption
from deployments.cli.stores import existing_store, has_store
from deployments.cli.terminal import console

if TYPE_CHECKING:
    from sdlora.store.champions import ChampionHistory, HistoryEntry


def versions(
    style: Annotated[str | None, typer.Argument(help="Only the versions of this style.", show_default=False)] = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """List the trained adapters: champion, scores, decisions."""
    from rich.table import Table

    from sdlora.core.errors import DataError
    from sdlora.store.champions import champion_history, styles_with_history

    styles: list[str] = []
    histories: list[ChampionHistory] = []
    if has_store(home):
        with existing_store(home) as store, store.read() as session:
            styles = styles_with_history(session)
            histories = [champion_history(session, name) for name in styles if style in (None, name)]
    if style is not None and not histories:
        raise DataError(f"No versions of {style!r} in {home}. Styles that have some: {', '.join(styles) or 'none'}.")
    if not histories:
        console.print(f"No versions yet in {home}. Train one: [bold]sdlora demo[/]")
        return
    table = Table(box=None, padding=(0, 1, 0, 0))  # so that a row fits into 80 columns
    for heading in ("name", "version", "", "score", "base", "images", "decision", "decided"):
        table.add_column(heading, no_wrap=heading != "decision")
    for history in histories:
        for entry in _latest_entries(history):
            table.add_row(history.style, *_row(history, entry))
    console.print(table)


def _latest_entries(history: ChampionHistory) -> list[HistoryEntry]:
    """Return the latest entry of each version, the newest version first."""
    entries = {entry.version.number: entry for entry in history.entries}
    return [entries[number] for number in sorted(entries, reverse=True)]


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
        "?" if version.train_count is None else str(version.train_count),
        entry.kind,
        entry.decided_at.astimezone().strftime("%Y-%m-%d"),
    ]
