"""Command `pretrain`: a base model from nothing but the collected images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.options import DEFAULT_HOME, HomeOption
from deployments.cli.stages import Stages
from deployments.cli.terminal import console, error_console, plain


def pretrain(
    home: HomeOption = DEFAULT_HOME,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML file with pretraining settings.", dir_okay=False)
    ] = None,
) -> None:
    """Make a base model from nothing but the collected images. Takes hours; an interrupted run continues.

    Collect captioned images first: [bold]sdlora collect FOLDER[/].
    """
    from deployments.local_run import prefect_server
    from sdlora.config import load_file
    from sdlora.pretraining.config import PretrainPlan

    plan = load_file(config, PretrainPlan) if config else PretrainPlan()
    with prefect_server(home, "pretrain") as server:
        with error_console.status("Starting ..."):
            from flows.pretrain import pretrain as flow
            from tasks.form import PLAN
            from tasks.progress import listening

            server.wait_ready()
        with Stages() as stages, listening(stages):
            base = flow(**PLAN.parameters(plan), home=home)
    console.print("The base model is ready. Use it in a configuration:")
    console.print(plain(f"base_model:\n  source: {base.folder}"), soft_wrap=True)
