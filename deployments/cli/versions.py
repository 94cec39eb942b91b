"""`versions`: list the trained adapters."""

from __future__ import annotations

import os

from deployments.cli.options import DEFAULT_HOME, HomeOption
from deployments.cli.terminal import console


def versions(home: HomeOption = DEFAULT_HOME) -> None:
    """List the trained adapters: aliases, scores, decisions."""
    from rich.table import Table

    if not (home / "mlflow" / "mlflow.db").is_file() and "MLFLOW_TRACKING_URI" not in os.environ:
        console.print(f"No versions yet in {home}. Train one: [bold]sdlora demo[/]")
        return
    from deployments.local_run import prepare_environment

    prepare_environment(home)
    with console.status("Reading the registry ..."):
        from tasks.tracking import Registry

        registry = Registry(home)
        trained = [version for name in registry.names() for version in registry.versions(name)]
    table = Table("name", "version", "aliases", "KID", "base's KID", "images", "decision", "made", box=None)
    for version in trained:
        tags = version.tags
        table.add_row(
            version.name,
            str(version.number),
            ", ".join(version.aliases),
            tags.get("kid", "?"),
            tags.get("kid_base", "?"),
            tags.get("train_count", "?"),
            tags.get("decision", "not finished"),
            version.created.astimezone().strftime("%Y-%m-%d %H:%M"),
        )
    console.print(table)
