"""Command `gc`: delete what the rules of retention list."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.json_output import print_json
from deployments.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from deployments.cli.stages import Stages
from deployments.cli.terminal import console, plain

if TYPE_CHECKING:
    from tasks.retention import Garbage

SHOWN_PER_KIND = 20


def gc(
    home: HomeOption = DEFAULT_HOME,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list, and change nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete what the state folder no longer needs: lost candidates, runner-ups, old pages, unused caches.

    Champions, earlier champions, unfinished runs, and what a person rated, chose or decided always stay. The rules are
    numbers in retention.yaml of the state folder; docs/retention.md lists them.

    Example: [bold]sdlora gc --dry-run[/]
    """
    from deployments.local_run import prepare_environment

    home = home.resolve()
    prepare_environment(home)
    from tasks.retention import collect_garbage

    with Stages() as stages:
        garbage = collect_garbage(home, dry_run=dry_run, on_progress=stages.on_progress)
    if as_json:
        removals = [
            {"kind": each.kind, "what": each.what, "why": each.why, "byte_size": each.size} for each in garbage.removals
        ]
        unfinished = [{"path": each.path, "byte_size": each.size} for each in garbage.unfinished]
        print_json(
            {"is_dry_run": dry_run, "byte_size": garbage.size, "removals": removals, "unfinished_runs": unfinished}
        )
        return
    _print(garbage)


def _print(garbage: Garbage) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("what", no_wrap=True)
    table.add_column("MB", justify="right", no_wrap=True)
    table.add_column("why")
    shown: Counter[str] = Counter()
    for removal in garbage.removals:
        shown[removal.kind] += 1
        if shown[removal.kind] <= SHOWN_PER_KIND:
            table.add_row(plain(removal.what), f"{removal.size / 1e6:.1f}", plain(removal.why))
    if garbage.removals:
        console.print(table)
    for kind, count in shown.items():
        if count > SHOWN_PER_KIND:
            console.print(f"  and {count - SHOWN_PER_KIND} more of kind {kind}")
    if not garbage.removals:
        console.print("Nothing to delete under the rules of retention.")
    elif garbage.is_dry_run:
        console.print(f"Would free {garbage.size / 1e6:.1f} MB. Nothing was changed.")
    else:
        console.print(f"Freed {garbage.size / 1e6:.1f} MB.")
    for run in garbage.unfinished:
        text = f"Unfinished training, {run.size / 1e6:.1f} MB, kept: {run.path}. Delete the folder to give it up."
        console.print(plain(text), soft_wrap=True)
