"""Command `up`: Prefect, MLflow and a worker on this machine."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from deployments.cli.options import DEFAULT_HOME, DEMO_CONFIG, ConfigOption, HomeOption
from deployments.cli.terminal import console, plain
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
    """Start Prefect, MLflow and a worker on this machine, with the flows ready to run from the browser.

    Every style has a deployment of its own, with its schedule; changed files are taken up within seconds. The form of
    `retrain` starts with the settings of --config. Stop everything with Ctrl-C.
    """
    from deployments.doctor import disk_finding
    from deployments.up import LocalStack

    disk = disk_finding(home)
    if disk.level != "good":
        console.print(plain(f"Disk: {disk.text}"), style="yellow", soft_wrap=True)
    LocalStack(
        home.resolve(),
        config.resolve(),
        prefect_port,
        mlflow_port,
        # soft_wrap: a password broken over two lines cannot be copied
        lambda text: console.print(plain(text), soft_wrap=True),
        sys.stdout.isatty(),  # with FORCE_COLOR, rich takes a pipe for a terminal, too
    ).run()
