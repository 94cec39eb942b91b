"""Command `run`: one pass of the loop, for one style or for several."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.call_flow import call_flow
from deployments.cli.choosing import style_path
from deployments.cli.json_output import print_json
from deployments.cli.options import DEFAULT_HOME, HomeOption, JsonOption, StyleArgument, StyleFileOption
from deployments.cli.terminal import console, error_console

if TYPE_CHECKING:
    from sdlora.config import PipelineConfig
    from tasks.results import Release


def run(
    style: StyleArgument = None,
    home: HomeOption = DEFAULT_HOME,
    config: StyleFileOption = None,
    every: Annotated[
        bool, typer.Option("--all", help="Run every style of the state folder, in the order of names.")
    ] = False,
    affected_by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="IMAGE",
            help="Run every style with a version that learnt from this image (first digits, or its file); repeatable.",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(help="Judge again although nothing is new; published evidence stays."),
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting that wins over the file, such as training.steps=1000; repeatable."),
    ] = None,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print every setting and where it comes from, and do nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the loop once: collect, clean, fine-tune, duel with the champion, publish.

    No server has to run beforehand. An interrupted run continues with the same command.

    Example: [bold]sdlora run my-style[/]
    """
    if (style is not None) + (config is not None) + every + bool(affected_by) > 1:
        raise typer.BadParameter("name a style, or give --config, --all or --affected-by, only one of them.")
    if every or affected_by:
        if show_config or settings:
            raise typer.BadParameter("these are for one style: name it.", param_hint="--show-config / --set")
        from deployments.cli.run_all import run_affected, run_all

        if affected_by:
            run_affected(affected_by, home.resolve(), force, as_json)
        else:
            run_all(home.resolve(), force, as_json)
        return
    file = style_path(home, style, config, "sdlora run {}` or all, `sdlora run --all")
    if show_config:
        _show_config(file, home, settings or (), as_json)
    else:
        retrain(file, home, force, settings or (), as_json)


def _show_config(config_file: Path, home: Path, flags: Sequence[str], as_json: bool) -> None:
    from deployments.cli.settings_output import settings_table
    from sdlora.config import explain, load_config, parse_flags
    from sdlora.models.files.sources import load_base_model

    overrides = parse_flags(flags)
    config = load_config(config_file, overrides)
    base = load_base_model(config.base_model, home.resolve())
    settings = explain(config, base, home.resolve(), overrides)
    if as_json:
        print_json({"settings": settings})
    else:
        console.print(settings_table(settings))


def retrain(config_file: Path, home: Path, force: bool, flags: Sequence[str] = (), as_json: bool = False) -> Release:
    """Run the loop, unless nothing changed since the last run, and print the outcome."""
    from deployments.cli.run_output import print_release, release_object
    from deployments.styles.files import refuse_second_style
    from deployments.styles.watermark import remember, unchanged_release, watermark
    from sdlora.config import load_config, parse_flags

    started_at = time.monotonic()
    home = home.resolve()
    config = load_config(config_file, parse_flags(flags))  # before any server starts, so that a misspelt key fails fast
    refuse_second_style(home, config_file, config)
    release = None if force else unchanged_release(config, home)
    if release is None:
        before = watermark(config, home)
        release = _run_flow(config, home, force)
        remember(config, home, release, before)
    seconds = time.monotonic() - started_at
    if as_json:
        print_json(release_object(release, seconds))
    else:
        print_release(release, seconds)
    return release


def _run_flow(config: PipelineConfig, home: Path, force: bool) -> Release:
    from deployments.local_run import prefect_server

    with prefect_server(home, "run") as server:
        with error_console.status("Starting ..."):
            from flows.retrain import retrain

            server.wait_ready()
        return call_flow(retrain, config, home, force)
