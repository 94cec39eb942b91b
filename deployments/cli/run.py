"""Command `run`: one pass of the loop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.options import DEFAULT_HOME, DEMO_CONFIG, ConfigOption, HomeOption
from deployments.cli.terminal import Stages, console

if TYPE_CHECKING:
    from sdlora.config import PipelineConfig
    from tasks.results import Release


def run(
    home: HomeOption = DEFAULT_HOME,
    config: ConfigOption = DEMO_CONFIG,
    force: Annotated[bool, typer.Option(help="Score and decide again although nothing is new.")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting that wins over the file, such as training.steps=1000; repeatable."),
    ] = None,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print every setting and where it comes from, and do nothing.")
    ] = False,
) -> None:
    """Run the loop once: collect, clean, fine-tune, duel with the champion, publish.

    No server has to run beforehand. An interrupted run continues with the same command.

    Example: [bold]sdlora run --config my-style.yaml[/]
    """
    if show_config:
        _show_config(config, home, settings or ())
    else:
        retrain(config, home, force, settings or ())


def _show_config(config_file: Path, home: Path, flags: Sequence[str]) -> None:
    from deployments.cli.run_output import settings_table
    from sdlora.config import explain, load_config, parse_flags
    from sdlora.models.files.sources import load_base_model

    overrides = parse_flags(flags)
    config = load_config(config_file, overrides)
    base = load_base_model(config.base_model, home.resolve())
    console.print(settings_table(explain(config, base, home.resolve(), overrides)))


def retrain(config_file: Path, home: Path, force: bool, flags: Sequence[str] = ()) -> Release:
    from deployments.cli.run_output import print_release
    from deployments.watermark import remember, unchanged_release
    from sdlora.config import load_config, parse_flags

    started_at = time.monotonic()
    home = home.resolve()
    config = load_config(config_file, parse_flags(flags))  # before any server starts, so that a misspelt key fails fast
    release = None if force else unchanged_release(config, home)
    if release is None:
        release = _run_flow(config, home, force)
        remember(config, home, release)
    print_release(release, time.monotonic() - started_at)
    return release


def _run_flow(config: PipelineConfig, home: Path, force: bool) -> Release:
    from deployments.local_run import prefect_server

    with prefect_server(home, "run") as server:
        with console.status("Starting ..."):
            from flows.retrain import retrain
            from tasks.form import STYLE
            from tasks.progress import listening

            server.wait_ready()
        with Stages() as stages, listening(stages):
            return retrain(**STYLE.parameters(config), force=force, home=home)
