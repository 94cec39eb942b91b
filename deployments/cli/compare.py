"""Command `compare`: LoRA, its variants and regular fine-tuning on the same images, seeds and budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.choosing import style_path
from deployments.cli.json_output import print_json
from deployments.cli.options import DEFAULT_HOME, HomeOption, JsonOption, StyleArgument, StyleFileOption
from deployments.cli.stages import Stages
from deployments.cli.terminal import console, error_console, plain

if TYPE_CHECKING:
    from sdlora.records.comparison import Comparison


def compare(
    style: StyleArgument = None,
    home: HomeOption = DEFAULT_HOME,
    config: StyleFileOption = None,
    methods: Annotated[
        str, typer.Option(help="Training methods, separated by commas: lora, rslora, dora, loha, lokr, pissa, full.")
    ] = "lora,full",
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of each method; empty: training.steps.")] = None,
    full_rate: Annotated[
        float | None, typer.Option(help="Learning rate of full; empty: a tenth of training.learning_rate.")
    ] = None,
    equal_seconds: Annotated[
        bool,
        typer.Option(
            "--equal-seconds",
            help="Give every method the time that the first takes for its steps, measured in short trials.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train the same images with several methods, and show the quality and costs of each. Nothing is published.

    Example: [bold]sdlora compare my-style --methods lora,dora,full --steps 300[/]
    """
    from sdlora.config import load_config
    from sdlora.training.methods import check_methods

    home = home.resolve()
    settings = load_config(style_path(home, style, config, "sdlora compare {}"))
    names = tuple(dict.fromkeys(name.strip() for name in methods.split(",") if name.strip()))
    checked = check_methods(names, "--methods")
    if steps is not None:
        from tasks.budget import with_training

        settings = with_training(settings, steps=steps)
    from deployments.local_run import prefect_server

    with prefect_server(home, "compare") as server:
        with error_console.status("Starting ..."):
            from flows.compare import compare as flow
            from tasks.form import STYLE
            from tasks.progress import listening

            server.wait_ready()
        with Stages() as stages, listening(stages):
            comparison, page = flow(
                **STYLE.parameters(settings),
                methods=checked,
                full_learning_rate=full_rate,
                equal="seconds" if equal_seconds else "steps",
                home=home,
            )
    if as_json:
        print_json(comparison_object(comparison, page))
        return
    print_comparison(comparison)
    console.print(plain(f"Page: {page}"), soft_wrap=True)


def comparison_object(comparison: Comparison, page: Path) -> dict[str, object]:
    """Return the record of a comparison under its names of today; the file keeps an older key."""
    return {"comparison": comparison.model_dump(by_alias=False), "page": page}


def print_comparison(comparison: Comparison) -> None:
    """Print quality and costs as one table."""
    from rich.markup import escape
    from rich.table import Table

    from sdlora.records.comparison import title
    from sdlora.release.comparison_page import cost_rows, difference_rows, pair_titles, quality_rows

    table = Table(title=escape(comparison.budget), title_justify="left", title_style="dim")
    table.add_column("")
    for contestant in comparison.contestants:
        table.add_column(title(contestant.name), justify="right")
    for rows in (quality_rows(comparison), cost_rows(comparison)):
        for label, cells in rows:
            table.add_row(label, *map(escape, cells))
        table.add_section()
    console.print(table)
    for number, pair in enumerate(pair_titles(comparison)):
        labels_by_verdict: dict[str, list[str]] = {}
        for label, cells in difference_rows(comparison):
            value, _, verdict = cells[number].rpartition(", ")
            labels_by_verdict.setdefault(verdict, []).append(f"{label} {value}")
        words = "; ".join(f"{verdict}: {', '.join(values)}" for verdict, values in sorted(labels_by_verdict.items()))
        console.print(f"[bold]{escape(pair)}[/]: {escape(words)}.", soft_wrap=True)
