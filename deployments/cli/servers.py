"""`up`, `login` and `doctor`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from deployments.cli.loop import DEMO_CONFIG
from deployments.cli.options import DEFAULT_HOME, ConfigOption, HomeOption
from deployments.cli.terminal import console
from deployments.environment import MLFLOW_PORT, PREFECT_PORT


def up(
    home: HomeOption = DEFAULT_HOME,
    config: ConfigOption = DEMO_CONFIG,
    prefect_port: Annotated[
        int, typer.Option(envvar="SDLORA_PREFECT_PORT", min=1, max=65535, help="Port of the Prefect page.")
    ] = PREFECT_PORT,
    mlflow_port: Annotated[
        int, typer.Option(envvar="SDLORA_MLFLOW_PORT", min=1, max=65535, help="Port of the MLflow page.")
    ] = MLFLOW_PORT,
) -> None:
    """Start Prefect, MLflow and a worker here, with the flows ready to be run from the browser.

    The form of `retrain` starts with the settings of --config. Stop everything with Ctrl-C.
    """
    from deployments.up import LocalStack
    from sdlora.config import load_config

    settings = load_config(config)
    LocalStack(
        home.resolve(),
        settings,
        prefect_port,
        mlflow_port,
        lambda text: console.print(text, markup=False, soft_wrap=True),  # a password on two lines cannot be copied
        sys.stdout.isatty(),  # rich also calls a pipe a terminal, where FORCE_COLOR is set
    ).run()


def login(home: HomeOption = DEFAULT_HOME) -> None:
    """Show what the pages of Prefect and MLflow ask for. The password is the state folder's, and yours alone."""
    from deployments.credentials import credentials_of
    from deployments.running import require_current, running_services
    from sdlora.core.errors import ConfigError

    if not home.is_dir():
        raise ConfigError(f"{home} does not exist. Correct --home, or make it: sdlora up --home {home}")
    credentials = credentials_of(home)
    if running := running_services(home):
        require_current(running["prefect"], credentials)
    console.print(credentials.told(), markup=False, soft_wrap=True)


def doctor(home: HomeOption = DEFAULT_HOME) -> None:
    """Check this installation and the state folder; every problem comes with its remedy."""
    from deployments.doctor import examine

    failures = 0
    for finding in examine(home):
        failures += finding.level == "problem"
        mark = {"good": "[green]✓[/]", "note": "[yellow]![/]", "problem": "[red]✗[/]"}[finding.level]
        console.print(f"{mark} [bold]{finding.subject}[/]", end=" ")
        console.print(finding.text, markup=False, soft_wrap=True)
    if failures:
        raise typer.Exit(1)
