"""Command `sdlora` with all its subcommands."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.adopt import adopt
from deployments.cli.cancel import cancel
from deployments.cli.checks import checks
from deployments.cli.collect import collect
from deployments.cli.commands import as_command
from deployments.cli.compare import compare
from deployments.cli.datasets import datasets_app
from deployments.cli.demo import demo
from deployments.cli.doctor import doctor
from deployments.cli.down import down
from deployments.cli.export import export
from deployments.cli.gc import gc as collect_garbage
from deployments.cli.generate import generate
from deployments.cli.images import images_app
from deployments.cli.inspect import inspect
from deployments.cli.login import login
from deployments.cli.logs import logs
from deployments.cli.new import new
from deployments.cli.notify import notify_app
from deployments.cli.options import DEFAULT_HOME, HOME_VARIABLE, QuietOption, VerboseOption
from deployments.cli.pretrain import pretrain
from deployments.cli.promote import promote
from deployments.cli.queue import queue
from deployments.cli.reject import reject
from deployments.cli.rollback import rollback
from deployments.cli.run import run
from deployments.cli.snapshot import snapshot_app
from deployments.cli.status import status
from deployments.cli.styles import styles
from deployments.cli.terminal import verbosity
from deployments.cli.up import up
from deployments.cli.versions import versions
from deployments.environment import quiet_terminal
from deployments.servers.garbage import collect_garbage_seldom
from sdlora.processes.memory import keep_freed_memory

app = typer.Typer(
    name="sdlora",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Keeps a Stable Diffusion LoRA up to date with a growing collection of images.",
    epilog="Start with [bold]sdlora demo[/]; it needs no network, no GPU and no settings. Your own images: "
    "[bold]sdlora new[/]",
)
COMMANDS = (
    demo,
    new,
    styles,
    run,
    queue,
    cancel,
    collect,
    checks,
    generate,
    versions,
    adopt,
    promote,
    reject,
    rollback,
    export,
    inspect,
    compare,
    up,
    down,
    status,
    logs,
    login,
    pretrain,
    doctor,
    collect_garbage,
)
for _command in COMMANDS:
    app.command()(as_command(_command))
WRITABLE_BY_OTHERS = 0o022
"""Permissions that no file of a command has, whatever the umask."""
GROUPS = {"images": images_app, "datasets": datasets_app, "snapshot": snapshot_app, "notify": notify_app}
for _name, _group in GROUPS.items():
    app.add_typer(_group, name=_name)


def _print_version(asked: bool) -> None:
    if asked:
        from sdlora import __version__

        typer.echo(f"sdlora {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    context: typer.Context,
    home: Annotated[
        Path | None, typer.Option("--home", envvar=HOME_VARIABLE, help=f"State folder. Default: {DEFAULT_HOME}")
    ] = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    version: Annotated[  # its callback ends the command
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    verbosity.quiet, verbosity.verbose = quiet, verbose
    if home is not None:  # `sdlora --home X run` means `sdlora run --home X`; an option after the command wins
        context.default_map = {command.__name__: {"home": str(home)} for command in COMMANDS}
        context.default_map |= {name: {"home": str(home)} for name in GROUPS}


def main() -> None:
    """Run a command; every failure is one message and an exit code, never a traceback."""
    # A server, a worker and every other child inherits it. The library leaves its caller's umask as it is.
    os.umask(os.umask(0o077) | WRITABLE_BY_OTHERS)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM stops a command as Ctrl-C does
    for name, value in quiet_terminal().items():  # the libraries read them at import
        os.environ.setdefault(name, value)
    # peft imports bitsandbytes where it is installed; it then logs which faster kernels are missing.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    collect_garbage_seldom()
    keep_freed_memory()
    app()
