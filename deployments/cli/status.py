"""Command `status`: servers, runs, queue and disk in one table."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from deployments.cli.down import LABELS
from deployments.cli.json_output import print_json
from deployments.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from deployments.cli.stores import existing_store, has_store
from deployments.cli.terminal import console, hint, plain
from sdlora.core.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from deployments.servers.status import StackState

COLOURS = {"running": "green", "starting": "yellow", "down": "red"}


def status(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show the servers with their links and health, runs, the queue and the disk. Ends with 1 if something is down.

    Example: [bold]sdlora status[/]
    """
    from deployments.servers.status import stack_state

    if not home.is_dir():
        raise ConfigError(f"{home} does not exist. Correct --home, or create the folder: sdlora up --home {home}")
    home = home.resolve()
    state = stack_state(home)
    waiting, database_problem = _queue(home)
    is_good = state.is_good and database_problem is None
    if as_json:
        print_json(_object(state, waiting, database_problem, is_good))
    else:
        _print(home, state, waiting, database_problem)
    if not is_good:
        raise typer.Exit(1)


def _queue(home: Path) -> tuple[list[str], str | None]:
    """Return the titles of waiting tickets, and the problem of an image database that does not answer."""
    from sdlora.store.tickets import active_tickets

    if not has_store(home):
        return [], None
    try:
        with existing_store(home) as store, store.read() as session:
            return [ticket.title for ticket in active_tickets(session) if ticket.state == "waiting"], None
    except StorageError as error:
        return [], str(error)


def _object(state: StackState, waiting: list[str], database_problem: str | None, is_good: bool) -> dict[str, object]:
    return {
        "is_good": is_good,
        "pid": state.pid,
        "services": [
            {"name": service.name, "state": service.state, "url": service.url, "pid": service.pid, "log": service.log}
            for service in state.services
        ],
        "runs": None
        if state.runs is None
        else [
            {"id": run.id, "name": run.name, "state": run.state, "since": run.since, "url": run.url}
            for run in state.runs
        ],
        "waiting": waiting,
        "database_problem": database_problem,
        "free_bytes": state.free_bytes,
        "total_bytes": state.total_bytes,
    }


def _print(home: Path, state: StackState, waiting: list[str], database_problem: str | None) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for _ in range(3):
        table.add_column(no_wrap=True)
    for service in state.services:
        colour = COLOURS[service.state]
        detail = service.url or (f"process {service.pid}" if service.pid else "")
        table.add_row(plain(LABELS[service.name]), f"[{colour}]{service.state}[/]", plain(detail))
    if database_problem:
        table.add_row("database", "[red]down[/]", plain(database_problem))
    for run in state.runs or ():
        table.add_row(plain(f"run {run.name}"), plain(run.state.lower()), plain(f"{_age(run.since)}{run.url}"))
    for title in waiting:
        table.add_row(plain(title), "waiting", "")
    free, total = state.free_bytes / 1e9, state.total_bytes / 1e9
    table.add_row("disk", plain(f"{free:,.1f} GB free"), plain(f"of {total:,.1f} GB, at {home}"))
    console.print(table)
    if state.pid is None:
        hint(f"Start the servers: [bold]sdlora up --home {plain(home)}[/]", soft_wrap=True)
    elif not state.is_good:
        hint("A server that ended is started again by itself. Why it ended: [bold]sdlora logs[/]")


def _age(since: str | None) -> str:
    if since is None:
        return ""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds()
    minutes = max(int(seconds // 60), 0)
    hours, minutes = divmod(minutes, 60)
    return f"for {hours} h {minutes} min, " if hours else f"for {minutes} min, "
