"""Command `doctor`: problems of the installation and the state folder, with their remedies."""

from __future__ import annotations

import typer

from deployments.cli.options import DEFAULT_HOME, HomeOption
from deployments.cli.terminal import console


def doctor(home: HomeOption = DEFAULT_HOME) -> None:
    """Check this installation and the state folder; every problem comes with its remedy."""
    from deployments.doctor import diagnose

    failures = 0
    for finding in diagnose(home):
        failures += finding.level == "problem"
        mark = {"good": "[green]✓[/]", "note": "[yellow]![/]", "problem": "[red]✗[/]"}[finding.level]
        console.print(f"{mark} [bold]{finding.subject}[/]", end=" ")
        console.print(finding.text, markup=False, soft_wrap=True)
    if failures:
        raise typer.Exit(1)
