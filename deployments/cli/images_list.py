"""Output of `sdlora images`: the list of collected images, and of images drawn by models."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from deployments.cli.json_output import print_json
from deployments.cli.stores import choose_dataset, existing_store, has_store
from deployments.cli.terminal import console, hint, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sdlora.store.generations import Generation
    from sdlora.store.records import Counts, ImageRecord, Verdict
    from sdlora.store.selection import Selection

_ROWS_SHOWN = 50
_NAME_COLUMNS = 24
"""Columns of a file's name on a terminal."""


def list_collected(home: Path, dataset: str | None, selection: Selection, limit: int | None, as_json: bool) -> None:
    """Print the selected images of a dataset with its counts; without a limit all as JSON, else the first."""
    from sdlora.store.records import Counts

    limit = limit or (None if as_json else _ROWS_SHOWN)
    rows: list[ImageRecord] = []
    counts, drawn_count = Counts(0, 0, 0, {}), 0
    if has_store(home):
        with existing_store(home) as store:
            if dataset or store.dataset_names():
                chosen = choose_dataset(store, dataset)
                rows, counts = chosen.select(selection, limit), chosen.counts()
            drawn_count = store.generation_count()
    if as_json:
        print_json({"images": rows, "counts": {**asdict(counts), "total": counts.total}, "drawn_count": drawn_count})
    elif not counts.total:
        console.print(plain(f"No images yet in {home}. Collect some: sdlora collect FOLDER"))
    elif selection.rejected_by and not rows:
        names = ", ".join(counts.rejected_by) or "none"
        told = f"No image was rejected by {selection.rejected_by!r}. Checks that rejected some: {names}."
        console.print(plain(told))
    else:
        _print_collected(rows, counts, selection.verdict, limit)
    if drawn_count and not as_json:
        hint(f"{drawn_count} images were drawn by models: [bold]sdlora images --drawn[/]")


def list_drawn(home: Path, limit: int | None, as_json: bool) -> None:
    """Print the images that models drew, the newest first; without a limit all as JSON, else the first."""
    limit = limit or (None if as_json else _ROWS_SHOWN)
    rows: Sequence[Generation] = ()
    count = 0
    if has_store(home):
        with existing_store(home) as store:
            rows, count = store.generations(limit), store.generation_count()
    if as_json:
        print_json({"generations": rows, "drawn_count": count})
        return
    if not rows:
        console.print(plain(f'No drawn images in {home}. Draw one: sdlora generate "a red car"'))
        return
    table = _table("image", "model", "seed", "stars")
    table.add_column("prompt", no_wrap=True, ratio=1)
    for row in rows:
        stars = "" if row.stars is None else f"{row.stars:.2g}"
        table.add_row(*map(plain, (row.sha256[:10], row.model_version, row.seed, stars, row.prompt)))
    console.print(table)
    if len(rows) < count:
        console.print(f"{count} images were drawn; the first {len(rows)} are shown (--limit).")
    hint("Look at one: [bold]sdlora images show ID[/]. Rate it: [bold]sdlora images rate ID --stars 5[/]")


def _print_collected(rows: Sequence[ImageRecord], counts: Counts, verdict: Verdict | None, limit: int | None) -> None:
    table = _table("image", "file")
    if verdict == "rejected":
        table.add_column("reason", ratio=1)
    else:
        table.add_column("caption", no_wrap=True, ratio=1)
        table.add_column("verdict", no_wrap=True)
    for row in rows:
        last_cells = (row.reason or "",) if verdict == "rejected" else ((row.captions or ("",))[0], in_brief(row))
        table.add_row(*map(plain, (row.sha256[:10], (row.files or ("",))[0], *last_cells)))
    console.print(table)
    checks = ", ".join(f"{count} {check}" for check, count in counts.rejected_by.items())
    console.print(
        f"{counts.total} images: {counts.accepted} accepted, {counts.rejected} rejected"
        + (f" ({checks})" if checks else "")
        + (f", {counts.pending} not yet judged" if counts.pending else "")
        + (f"; the first {len(rows)} are shown (--limit)" if len(rows) == limit and limit < counts.total else "")
    )
    hint("Look at one: [bold]sdlora images show ID[/]")


def in_brief(row: ImageRecord) -> str:
    """Return the verdict in a few words: the image's side of the split, or the check that rejected it."""
    if row.verdict == "rejected":
        return f"rejected: {row.rejected_by}"
    if row.removed_at is not None:
        return "removed from the dataset"
    if row.verdict is None:
        return "not yet judged"
    return {"train": "accepted, train", "held_out": "accepted, held out"}.get(row.split or "", "accepted")


def _table(*headings: str) -> Table:
    """Return a table that fills a terminal; in a pipe, columns are as wide as their texts."""
    on_terminal = console.is_terminal
    table = Table(box=None, header_style="bold", expand=on_terminal)
    for heading in headings:
        table.add_column(heading, no_wrap=True, max_width=_NAME_COLUMNS if on_terminal else None)
    return table
