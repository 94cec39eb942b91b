"""Command `doctor`: problems of the installation and the state folder, with their remedies."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.options import DEFAULT_HOME, HomeOption
from deployments.cli.terminal import Stages, console

if TYPE_CHECKING:
    from sdlora.integrity.damage import Damage

SHOWN_PER_KIND = 20


def doctor(
    home: HomeOption = DEFAULT_HOME,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read everything that has a digest, and report what is damaged.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="With --deep: restore from whole copies, and delete damaged cache entries."),
    ] = False,
) -> None:
    """Check this installation and the state folder; every problem comes with its remedy.

    The exit status is 1 if a problem remains.
    """
    from deployments.doctor import diagnose, diagnose_deeply

    if repair and not deep:
        raise typer.BadParameter("works with --deep only.", param_hint="--repair")
    failures = 0
    for finding in diagnose(home):
        failures += finding.level == "problem"
        mark = {"good": "[green]✓[/]", "note": "[yellow]![/]", "problem": "[red]✗[/]"}[finding.level]
        console.print(f"{mark} [bold]{finding.subject}[/]", end=" ")
        console.print(finding.text, markup=False, soft_wrap=True)
    if deep and home.exists():
        with Stages() as stages:
            damages = diagnose_deeply(home.resolve(), stages.on_progress, repair=repair)
        _print_damages(damages)
        failures += sum(not damage.repaired for damage in damages)
    if failures:
        raise typer.Exit(1)


def _print_damages(damages: list[Damage]) -> None:
    """Print the first damages of every kind, and the number of the others."""
    shown: Counter[str] = Counter()
    for damage in damages:
        shown[damage.kind] += 1
        if shown[damage.kind] <= SHOWN_PER_KIND:
            console.print("[green]✓[/]" if damage.repaired else "[red]✗[/]", end=" ")
            console.print(f"{damage.what} is {damage.problem}: {damage.where}", markup=False, soft_wrap=True)
            console.print(f"  {damage.remedy}", markup=False, soft_wrap=True)
    for kind, count in shown.items():
        if count > SHOWN_PER_KIND:
            console.print(f"  and {count - SHOWN_PER_KIND} more of kind {kind}")
    repaired = sum(damage.repaired for damage in damages)
    if not damages:
        console.print("[green]✓[/] [bold]deep[/] everything that has a digest is whole")
    else:
        remaining = len(damages) - repaired
        console.print(f"{len(damages)} damaged or missing, {repaired} repaired, {remaining} remaining.")
