"""Command `doctor`: problems of the installation and the state folder, with their remedies."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.json_output import print_json
from deployments.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from deployments.cli.stages import Stages
from deployments.cli.terminal import console, plain

if TYPE_CHECKING:
    from deployments.doctor import Finding
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
    as_json: JsonOption = False,
) -> None:
    """Check this installation and the state folder; every problem comes with its remedy.

    The exit status is 1 if a problem remains.
    """
    from deployments.doctor import diagnose, diagnose_deeply

    if repair and not deep:
        raise typer.BadParameter("works with --deep only.", param_hint="--repair")
    findings: list[Finding] = []
    for finding in diagnose(home):
        findings.append(finding)
        if not as_json:
            _print_finding(finding)
    damages: list[Damage] | None = None
    if deep:
        with Stages() as stages:
            damages = diagnose_deeply(home.resolve(), stages.on_progress, repair=repair)
        if not as_json:
            _print_damages(damages)
    is_good = all(finding.level != "problem" for finding in findings) and all(
        damage.repaired for damage in damages or ()
    )
    if as_json:
        print_json({"is_good": is_good, "findings": findings, "damages": damages})
    if not is_good:
        raise typer.Exit(1)


def _print_finding(finding: Finding) -> None:
    mark = {"good": "[green]✓[/]", "note": "[yellow]![/]", "problem": "[red]✗[/]"}[finding.level]
    console.print(f"{mark} [bold]{finding.subject}[/]", end=" ")
    console.print(plain(finding.text), soft_wrap=True)


def _print_damages(damages: list[Damage]) -> None:
    """Print the first damages of every kind, and the number of the others."""
    shown: Counter[str] = Counter()
    for damage in damages:
        shown[damage.kind] += 1
        if shown[damage.kind] <= SHOWN_PER_KIND:
            console.print("[green]✓[/]" if damage.repaired else "[red]✗[/]", end=" ")
            console.print(plain(f"{damage.what} is {damage.problem}: {damage.where}"), soft_wrap=True)
            console.print(plain(f"  {damage.remedy}"), soft_wrap=True)
    for kind, count in shown.items():
        if count > SHOWN_PER_KIND:
            console.print(f"  and {count - SHOWN_PER_KIND} more of kind {kind}")
    repaired = sum(damage.repaired for damage in damages)
    if not damages:
        console.print("[green]✓[/] [bold]deep[/] everything that has a digest is whole")
    else:
        remaining = len(damages) - repaired
        console.print(f"{len(damages)} damaged or missing, {repaired} repaired, {remaining} remaining.")
