"""Command `styles`: all styles of the state folder, with their images and champions."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.cli.json_output import print_json
from deployments.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from deployments.cli.stores import dataset_of, existing_store, has_store
from deployments.cli.terminal import console, hint, plain

if TYPE_CHECKING:
    from deployments.styles.files import Style
    from sdlora.store.readiness import Readiness
    from sdlora.store.style_figures import StyleFigures


def styles(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """List the styles: images, new ones among them, champion, score, last run, next run. Broken files come last.

    Example: [bold]sdlora styles[/]
    """
    from deployments.styles.files import FOLDER, load_styles

    found = load_styles(home)
    figures, triggers = _figures(found, home), trigger_decisions(found, home)
    if as_json:
        print_json({"styles": [_object(style, figures.get(style.name), triggers.get(style.name)) for style in found]})
        return
    if not found:
        console.print(plain(f"No styles yet in {home / FOLDER}. Make one: sdlora new NAME --images FOLDER"))
        return
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0))
    for heading in ("style", "images", "new", "champion", "score", "last run", "on", "next run"):
        table.add_column(heading, no_wrap=True, justify="right" if heading in ("images", "new") else "left")
    for style in found:
        if style.name in figures:
            table.add_row(*map(plain, (style.name, *_row(figures[style.name]), _time(_next_run(style)))))
    if table.row_count:
        console.print(table)
    _print_problems(found, figures)
    for name, decision in triggers.items():
        console.print(plain(f"{name}: {decision.text}"), style="dim", soft_wrap=True)
    if (triggers or any(_next_run(style) for style in found)) and not _stack_lives(home):
        hint("[dim]The clock and new data start runs only while[/] [bold]sdlora up[/] [dim]runs.[/]")


def _print_problems(found: list[Style], figures: dict[str, StyleFigures]) -> None:
    """Print why last runs failed, and what is wrong with files."""
    for style in found:
        run = figures[style.name].last_run if style.name in figures else None
        if style.problem:
            console.print(plain(f"{style.name}: {style.problem}"), style="red", soft_wrap=True)
        elif run and run.reason and run.state in ("failed", "lost", "skipped") and run.reason != "nothing new":
            joint = ", because" if run.state == "skipped" else ":"
            text = f"{style.name}: last run {run.state}{joint} {run.reason}"
            console.print(plain(text), style="yellow", soft_wrap=True)


def trigger_decisions(found: list[Style], home: Path) -> dict[str, Readiness]:
    """Return whether new data start a run, for the styles with a trigger."""
    configs = [style.config for style in found if style.config and not style.problem and style.config.trigger.is_on]
    if not configs or not has_store(home):
        return {}
    from tasks.triggered import decisions

    with existing_store(home) as store, store.read() as session:
        return decisions(session, configs)


def _figures(found: list[Style], home: Path) -> dict[str, StyleFigures]:
    """Return the figures of the styles whose files are whole."""
    from sdlora.store.style_figures import StyleFigures, style_figures

    datasets = {style.name: dataset_of(style.config) or style.name for style in found if not style.problem}
    if not has_store(home):
        return dict.fromkeys(datasets, StyleFigures())
    with existing_store(home) as store, store.read() as session:
        return style_figures(session, datasets)


def _object(style: Style, figures: StyleFigures | None, trigger: Readiness | None) -> dict[str, object]:
    champion, last_run = figures and figures.champion, figures and figures.last_run
    return {
        "name": style.name,
        "path": style.file,
        "problem": style.problem,
        "dataset": dataset_of(style.config),
        "images": figures and figures.images,
        "new_images": figures and figures.new_images,
        "champion": champion and champion.number,
        "metric": champion and champion.metric,
        "score": champion and champion.score,
        "last_decision": figures and figures.outcome,
        "decided_at": figures and figures.decided_at,
        "last_run": last_run and last_run.state,
        "last_run_reason": last_run and last_run.reason,
        "last_run_ended_at": last_run and last_run.ended_at,
        "next_run_at": _next_run(style),
        "is_ready": trigger and trigger.is_ready,
        "trigger_reason": trigger and trigger.reason,
    }


def _row(figures: StyleFigures) -> list[str]:
    from sdlora.records.metrics import METRICS

    champion, score = figures.champion, "?"
    outcome, ended_at = figures.last_outcome or (None, None)
    if champion and champion.metric and champion.score is not None:
        metric = METRICS[champion.metric]
        score = f"{metric.label} {metric.number(champion.score)}"
    return [
        f"{figures.images:,}",
        f"{figures.new_images:,}",
        f"version {champion.number}" if champion else "none",
        score if champion else "",
        outcome or "none yet",
        _time(ended_at),
    ]


def _next_run(style: Style) -> datetime | None:
    """Return the next start by the clock, as the style's file says; a schedule paused on Prefect's page counts."""
    from sdlora.core.schedule import next_start

    return next_start(style.config.schedule, datetime.now(UTC)) if style.config else None


def _stack_lives(home: Path) -> bool:
    from deployments.servers.running import stack_lives

    return stack_lives(home)


def _time(moment: datetime | None) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M") if moment else ""
