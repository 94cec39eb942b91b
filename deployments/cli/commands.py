"""Functions as commands: the options that every command has, and friendly errors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from deployments.cli.failures import friendly_errors
from deployments.cli.options import QuietOption, VerboseOption
from deployments.cli.terminal import verbosity


def as_command(function: Callable[..., None]) -> Callable[..., None]:
    """Return the function with --quiet and --verbose, whose errors are messages; Typer reads its signature."""
    command = friendly_errors(function)

    @wraps(function)
    def run(*arguments: Any, quiet: bool = False, verbose: bool = False, **options: Any) -> None:
        # An option before the command was read already, so a missing option here changes nothing.
        verbosity.quiet |= quiet
        verbosity.verbose |= verbose
        command(*arguments, **options)

    signature = inspect.signature(function, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("quiet", QuietOption), ("verbose", VerboseOption))
    ]
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]  # PEP 362
    return run
