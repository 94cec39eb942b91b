"""Failures of a command as one message and an exit code, without a traceback."""

from __future__ import annotations

import errno
import os
import re
import shutil
import traceback
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import typer
from rich.markup import escape

from deployments.cli.terminal import error_console, plain
from sdlora.core.errors import SdloraError

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130
FULL_DISK_BYTES = 2**20
# The clients' errors when no server answers. By name, because importing the clients takes seconds.
UNREACHABLE = {"ConnectError": "PREFECT_API_URL", "NewConnectionError": "MLFLOW_TRACKING_URI"}

P = ParamSpec("P")


def friendly_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Turn errors that `command` raises into messages. With SDLORA_TRACEBACK=1, the traceback is shown."""

    @wraps(command)
    def run(*arguments: P.args, **options: P.kwargs) -> None:
        try:
            command(*arguments, **options)
        except KeyboardInterrupt:
            error_console.print("\nStopped. Finished work is kept: [bold]the same command continues.[/]")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:  # the reader of a pipe has enough: Typer ends the command
            raise
        except Exception as error:
            # The command line library shows its own usage errors and exits, which carry an exit code.
            if hasattr(error, "exit_code"):
                raise
            if os.environ.get("SDLORA_TRACEBACK"):
                error_console.print(plain(traceback.format_exc()), soft_wrap=True)
            error_console.print(
                f"[bold red]Error:[/] {escape(error_message(error) + _full_disk_hint())}", soft_wrap=True
            )
            raise typer.Exit(EXIT_ERROR) from None

    return run


def error_message(error: BaseException) -> str:
    """Return the message for the person who typed the command."""
    for cause in _causes(error):
        if isinstance(cause, SdloraError):
            return str(cause)
        if isinstance(cause, OSError) and cause.errno == errno.EROFS:
            return f"{cause.filename or 'A folder to write to'} is on a read-only file system. Choose another --home."
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return _full_disk_message(cause.filename or "while writing")
        if "database or disk is full" in str(cause):  # SQLite's message, wrapped by SQLAlchemy, MLflow or Prefect
            return _full_disk_message("while writing to a database")
        if (variable := UNREACHABLE.get(type(cause).__name__)) and variable in os.environ:
            address = re.sub(r"//[^/@]*@", "//", os.environ[variable])
            return f"No server answers at {address} ({variable}). Start it again; the same command continues."
        if isinstance(cause, PermissionError):
            return f"No permission for {cause.filename}. Change its rights or choose another --home."
    return (
        f"{type(error).__name__}: {error}\nThis is not an error of yours. Set SDLORA_TRACEBACK=1 to see the traceback; "
        "the log is in the state folder under logs/."
    )


def _full_disk_message(where: str) -> str:
    return f"The disk is full ({where}). Free some space; the same command continues."


def _full_disk_hint() -> str:
    """Return a hint at a full disk, for failures whose cause stayed in another process, such as a server."""
    home = os.environ.get("SDLORA_HOME", ".")  # set by the commands that start servers
    try:
        free_bytes = shutil.disk_usage(home).free
    except OSError:
        return ""
    if free_bytes > FULL_DISK_BYTES:
        return ""
    return f"\nThe disk of {home} is full. Free some space; the same command continues."


def _causes(error: BaseException | None) -> list[BaseException]:
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes
