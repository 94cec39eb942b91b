"""Command `adopt`: an adapter that was made elsewhere fights for a style."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.images import WhoOption, account_name
from deployments.cli.json_output import print_json
from deployments.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from deployments.cli.stages import Stages
from deployments.cli.terminal import error_console

if TYPE_CHECKING:
    from sdlora.config import PipelineConfig
    from tasks.results import Release


def adopt(
    style: Annotated[str, typer.Argument(help="Style of the state folder.")],
    file: Annotated[Path, typer.Argument(help="LoRA or DoRA of kohya, ComfyUI, diffusers or peft, .safetensors.")],
    home: HomeOption = DEFAULT_HOME,
    why: Annotated[str, typer.Option("--why", help="The reason, kept with the decision.")] = "",
    who: WhoOption = None,
    force: Annotated[bool, typer.Option(help="Judge a file again that was adopted before, on today's images.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make an adapter from elsewhere the champion of a style, if it passes the gate. Nothing is trained.

    The file is compared with the style's base model. It fights against base and champion on the style's images, which
    are collected first. Its training images stay unknown.

    Example: [bold]sdlora adopt my-style downloaded.safetensors --why "bought from its maker"[/]
    """
    from deployments.cli.run_output import print_release, release_object
    from deployments.styles.files import find_style
    from sdlora.config import load_config
    from sdlora.lora.formats.inspect import inspect_adapter

    started_at = time.monotonic()
    home = home.resolve()
    config = load_config(find_style(home, style))
    inspect_adapter(file)  # before any server starts, so that a wrong file fails fast
    release = _run_flow(config, file.resolve(), who or account_name(), why, force, home)
    seconds = time.monotonic() - started_at
    if as_json:
        print_json(release_object(release, seconds))
    else:
        print_release(release, seconds, adopted=True)


def _run_flow(config: PipelineConfig, file: Path, who: str, why: str, force: bool, home: Path) -> Release:
    from deployments.local_run import prefect_server
    from deployments.styles.fitting_bases import fitting_bases
    from sdlora.core.errors import BaseMismatchError

    with prefect_server(home, "adopt") as server:
        with error_console.status("Starting ..."):
            from flows.adopt import adopt as flow
            from tasks.form import STYLE
            from tasks.progress import listening

            server.wait_ready()
        try:
            with Stages() as stages, listening(stages):
                return flow(file, who, why, **STYLE.parameters(config), force=force, home=home)
        except BaseMismatchError as error:
            raise BaseMismatchError(f"{error} {fitting_bases(file, home)}") from error
