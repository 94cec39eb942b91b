"""Command `down`: stop the servers of `sdlora up` from another terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from deployments.cli.json_output import print_json
from deployments.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from deployments.cli.terminal import console, error_console, plain

LABELS = {"prefect": "Prefect server", "mlflow": "MLflow server", "worker": "worker", "watcher": "watcher"}


def down(
    home: HomeOption = DEFAULT_HOME,
    timeout: Annotated[float, typer.Option(min=1, help="Longest wait in seconds; a training saves first.")] = 180.0,
    as_json: JsonOption = False,
) -> None:
    """Stop what `sdlora up` started, as Ctrl-C does there. Its runs save and end; runs of a terminal go on.

    Example: [bold]sdlora down && sdlora up[/]
    """
    from deployments.servers.stopping import stop_stack

    with error_console.status("Stopping ..."):
        stopped = stop_stack(home.resolve(), timeout)
    if as_json:
        services, ended, other = (stopped.services, stopped.ended_runs, stopped.other_runs) if stopped else ((), (), ())
        print_json({"was_up": stopped is not None, "services": services, "ended_runs": ended, "other_runs": other})
        return
    if stopped is None:
        console.print(plain(f"No `sdlora up` runs on {home}."))
        return
    console.print(plain(f"Stopped: {', '.join(LABELS[name] for name in stopped.services) or 'sdlora up'}."))
    for name in stopped.ended_runs:
        console.print(plain(f"Run {name} ended with its worker. What it saved is kept, and the next run continues."))
    for name in stopped.other_runs:
        console.print(plain(f"Run {name} goes on: a terminal or another program started it."))
