"""`collect` and `images`: what goes into the image database, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.loop import DEMO_CONFIG
from deployments.cli.options import DEFAULT_HOME, ConfigOption, HomeOption
from deployments.cli.terminal import Stages, console

if TYPE_CHECKING:
    from sdlora.store import ImageRecord


def collect(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Folders, or datasets saved to disk.")],
    home: HomeOption = DEFAULT_HOME,
    config: ConfigOption = DEMO_CONFIG,
) -> None:
    """Bring images into the database and judge each of them. What is known already costs nothing.

    Captions come from `name.txt` beside `name.png`, from `metadata.jsonl` or `metadata.csv`, else from the file name.
    """
    from sdlora.config import load_config
    from sdlora.data import clean
    from sdlora.data import collect as collect_source
    from sdlora.store import ImageStore

    settings = load_config(config).data
    with ImageStore.open(home) as store, Stages() as stages:
        before = store.counts()
        for source in sources:
            collect_source(store, source, settings, on_progress=stages.on_progress)
        clean(store, settings, on_progress=stages.on_progress)
        counts = store.counts()
    new = counts.total - before.total
    console.print(f"{new} new, {counts.total} in all: {counts.accepted} accepted, {counts.rejected} rejected.")
    if counts.rejected:
        console.print("See why: [bold]sdlora images --rejected[/]")
    console.print("Train on them: [bold]sdlora run[/]")


def images(
    home: HomeOption = DEFAULT_HOME,
    rejected: Annotated[bool, typer.Option("--rejected", help="Only images that were left out.")] = False,
    accepted: Annotated[bool, typer.Option("--accepted", help="Only images that are trained on or held out.")] = False,
    reason: Annotated[str | None, typer.Option(help="Only rejected by this check, such as near_duplicate.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many rows.")] = 50,
) -> None:
    """List the images, each with its verdict and the reason for it."""
    from rich.table import Table
    from rich.text import Text

    from sdlora.store import ImageStore, Verdict

    if rejected and accepted:
        raise typer.BadParameter("choose --rejected or --accepted, not both")
    verdict: Verdict | None = "rejected" if rejected or reason else "accepted" if accepted else None
    if not (home / "images.db").is_file():
        console.print(f"No images yet in {home}. Collect some: [bold]sdlora collect FOLDER[/]")
        return
    with ImageStore.open(home) as store:
        rows = store.images(verdict, rejected_by=reason, limit=limit)
        counts = store.counts()
    table = Table(box=None, header_style="bold", expand=True)
    for title in ("image", "file"):
        table.add_column(title, no_wrap=True, max_width=24)
    if verdict == "rejected":
        table.add_column("reason", ratio=1)
    else:
        table.add_column("caption", no_wrap=True, ratio=1)
        table.add_column("verdict", no_wrap=True)
    for row in rows:
        told = (row.reason or "",) if verdict == "rejected" else ((row.captions or ("",))[0], _in_brief(row))
        table.add_row(*(Text(cell) for cell in (row.sha256[:10], (row.files or ("",))[0], *told)))
    console.print(table)
    checks = ", ".join(f"{count} {check}" for check, count in counts.rejected_by.items())
    console.print(
        f"{counts.total} images: {counts.accepted} accepted, {counts.rejected} rejected"
        + (f" ({checks})" if checks else "")
        + (f", {counts.pending} not yet judged" if counts.pending else "")
        + (f"; the first {limit} are shown (--limit)" if len(rows) == limit < counts.total else "")
    )


def _in_brief(row: ImageRecord) -> str:
    """What became of the image, in a word or two: its place in training, or the check that rejected it."""
    if row.verdict == "rejected":
        return f"rejected: {row.rejected_by}"
    if row.verdict is None:
        return "not yet judged"
    return {"train": "accepted, train", "held_out": "accepted, held out"}.get(row.split or "", "accepted")
