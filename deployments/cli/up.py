"""Command `up`: Prefect, MLflow and a worker on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
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
    receiver_port: Annotated[
        int | None,
        typer.Option(
            envvar="SDLORA_RECEIVER_PORT", min=1, max=65535, help="Port where other systems may announce new images."
        ),
    ] = None,
    install: Annotated[
        bool,
        typer.Option("--install", help="Write a systemd unit that starts this at boot; start nothing now."),
    ] = False,
) -> None:
    """Start Prefect, MLflow and a worker on this machine, with the flows ready to run from the browser.

    Every style has a deployment of its own, with its schedule; changed files are taken up within seconds. The form of
    `retrain` starts with the settings of --config. Stop everything with Ctrl-C.
    """
    from deployments.doctor import disk_finding
    from deployments.up import LocalStack
    from sdlora.config import load_config

    if install:
        load_config(config)  # a broken file is told now
        _install(home, ["--config", str(config.resolve()), *_ports(prefect_port, mlflow_port, receiver_port)])
        return
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
        receiver_port,
    ).run()


def _ports(prefect_port: int, mlflow_port: int, receiver_port: int | None) -> list[str]:
    receiver = ["--receiver-port", str(receiver_port)] if receiver_port else []
    return ["--prefect-port", str(prefect_port), "--mlflow-port", str(mlflow_port), *receiver]


def _install(home: Path, arguments: list[str]) -> None:
    """Write the unit, print it, and say how to enable it; systemctl is left to the person."""
    from deployments.servers.systemd import ENVIRONMENT_FILE, install_unit

    path = install_unit(home, arguments)
    console.print(plain(path.read_text()), soft_wrap=True)
    console.print(plain(f"Written to {path}. Two commands enable it, now and at every boot:"), soft_wrap=True)
    console.print(plain(f"  systemctl --user enable --now {path.name}"), soft_wrap=True)
    console.print("  loginctl enable-linger")
    console.print(
        plain(f"Variables such as SDLORA_DATABASE_URL belong in {home.resolve() / ENVIRONMENT_FILE} (mode 600)."),
        soft_wrap=True,
    )
