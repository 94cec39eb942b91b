"""Command `logs`: log files of the servers, and the lines of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from deployments.cli.options import DEFAULT_HOME, HomeOption
from deployments.cli.terminal import console, plain
from sdlora.core.errors import ConfigError


def logs(
    name: Annotated[
        str | None, typer.Argument(metavar="[SERVICE|RUN]", help="prefect, mlflow, worker, or the name or id of a run.")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Number of lines at most.")] = 40,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines, until Ctrl-C.")] = False,
) -> None:
    """Show the end of a log; without a name, of every log. Control characters in foreign text are escaped.

    Example: [bold]sdlora logs worker -f[/]
    """
    from deployments.servers.log_files import RunLog, last_lines, log_files
    from deployments.servers.log_files import follow as new_lines_of

    if not home.is_dir():
        raise ConfigError(f"{home} does not exist. Correct --home.")
    home = home.resolve()
    files = log_files(home)
    if name is None:
        if follow:
            raise typer.BadParameter(f"needs one log: {', '.join(files) or 'none yet'}.", param_hint="--follow")
        for title, path in files.items():
            console.print(plain(f"{title} ({path})"), style="bold", soft_wrap=True)
            _print(last_lines(path, lines))
        if not files:
            console.print(plain(f"No logs yet in {home / 'logs'}."))
        return
    if name in files:
        _print(last_lines(files[name], lines))
        if follow:
            _print(new_lines_of(files[name]))
        return
    run = RunLog(home, name)
    _print(run.new_lines()[-lines:])
    if follow:
        _print(run.follow())


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        console.print(plain(line), soft_wrap=True)
