"""`demo`, `run`, `pretrain`: the commands that turn the loop."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.options import CONFIGS, DEFAULT_HOME, ConfigOption, HomeOption
from deployments.cli.terminal import Stages, clock, console

if TYPE_CHECKING:
    from sdlora.config import PipelineConfig
    from tasks.results import Release

DEMO_CONFIG = CONFIGS / "demo.yaml"


def demo(home: HomeOption = DEFAULT_HOME) -> None:
    """Teach the embedded model a new style from the bundled images: the whole loop, offline, in minutes.

    Run it again and it says that nothing is new. An interrupted demo goes on where it stopped.
    """
    _retrain(DEMO_CONFIG, home, force=False)
    _print_next_steps(home)


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
    """Turn the loop once: collect, clean, fine-tune, duel with the champion, publish.

    Nothing has to run beforehand. An interrupted run goes on with the same command.

    Example: [bold]sdlora run --config my-style.yaml[/]
    """
    if show_config:
        _show_config(config, home, settings or ())
    else:
        _retrain(config, home, force, settings or ())


def pretrain(
    home: HomeOption = DEFAULT_HOME,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML file with pretraining settings.", dir_okay=False)
    ] = None,
) -> None:
    """Make a base model from nothing but the collected images. Takes hours; an interrupted run goes on.

    Collect captioned images first: [bold]sdlora collect FOLDER[/].
    """
    from deployments.local_run import prefect_at_hand
    from sdlora.config import load_file
    from sdlora.pretraining.plan import PretrainPlan

    plan = load_file(config, PretrainPlan) if config else PretrainPlan()
    with prefect_at_hand(home, "pretrain") as server:
        with console.status("Starting ..."):
            from flows.pretrain import pretrain as flow
            from tasks.form import PLAN
            from tasks.progress import listening

            server.wait_ready()
        with Stages() as stages, listening(stages):
            base = flow(**PLAN.parameters(plan), home=home)
    console.print("The base model is ready. Use it in a configuration:")
    console.print(f"base_model:\n  source: {base.folder}", markup=False, soft_wrap=True)


def _show_config(config_file: Path, home: Path, flags: Sequence[str]) -> None:
    from deployments.cli.tables import settings_table
    from sdlora.config import explain, load_config, parse_flags
    from sdlora.models import load_base_model

    given = parse_flags(flags)
    config = load_config(config_file, given)
    base = load_base_model(config.base_model, home.resolve())
    console.print(settings_table(explain(config, base, home.resolve(), given)))


def _retrain(config_file: Path, home: Path, force: bool, flags: Sequence[str] = ()) -> Release:
    from deployments.watermark import remember, unchanged_release
    from sdlora.config import load_config, parse_flags

    began = time.monotonic()
    home = home.resolve()
    config = load_config(config_file, parse_flags(flags))  # before anything is started: a misspelt key costs no waiting
    release = None if force else unchanged_release(config, home)
    if release is None:
        release = _run_flow(config, home, force)
        remember(config, home, release)
    _print_release(release, time.monotonic() - began)
    return release


def _run_flow(config: PipelineConfig, home: Path, force: bool) -> Release:
    from deployments.local_run import prefect_at_hand

    with prefect_at_hand(home, "run") as server:
        with console.status("Starting ..."):
            from flows.retrain import retrain
            from tasks.form import STYLE
            from tasks.progress import listening

            server.wait_ready()
        with Stages() as stages, listening(stages):
            return retrain(**STYLE.parameters(config), force=force, home=home)


def _print_release(release: Release, seconds: float) -> None:
    from deployments.cli.tables import duel_table
    from sdlora.core.errors import EvaluationError
    from sdlora.records.evidence import load_duel

    number = f"{release.name} version {release.version}"
    if not release.new:
        console.print(f"Nothing new: {number} was made from exactly these images and settings.")
    try:
        console.print(duel_table(load_duel(release.run.evaluation)))
    except EvaluationError as error:  # cleared away by hand; the registry still knows the outcome
        console.print(f"[yellow]{error}[/]")
    verdict = "[green]passed the gate: it is the champion[/]" if release.promoted else "[yellow]is not promoted[/]"
    console.print(f"[bold]{number}[/] {verdict}")
    for reason in release.reasons:
        console.print(f"  - {reason}", markup=False)
    for label, value in (
        ("Time", clock(seconds)),
        ("Report", release.report),
        ("Data page", release.data_page),
        ("Before/after", release.grid),
        ("Adapter", release.run.release),
    ):
        console.print(f"{label + ':':<14}{value}", markup=False, soft_wrap=True)


def _print_next_steps(home: Path) -> None:
    from sdlora.assets import DEMO_LATER

    option = "" if home == DEFAULT_HOME else f" --home {home}"
    console.print("\nNext:")
    if shutil.which("sdlora") is None:  # started by make
        console.print("  [bold]. .venv/bin/activate[/]\n      [dim]once per terminal, so that it finds sdlora[/]")
    for command, meaning in (
        (
            f'sdlora generate "an emoji of tiger, animal"{option}',
            "draw with the champion (--base: without the adapter)",
        ),
        (f"sdlora images --rejected{option}", "see which images were left out, and why"),
        (f"sdlora collect {DEMO_LATER}{option}", "more images arrive ..."),
        (f"sdlora run{option}", "... and a second adapter challenges the champion"),
        (f"sdlora up{option}", "start runs and see versions in the browser"),
    ):
        console.print(f"  [bold]{command}[/]\n      [dim]{meaning}[/]", soft_wrap=True)
