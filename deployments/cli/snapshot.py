"""Command `snapshot`: the image lists that versions were trained on, and their differences."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.failures import friendly_errors
from deployments.cli.options import DEFAULT_HOME, HomeOption
from deployments.cli.terminal import console

if TYPE_CHECKING:
    from collections.abc import Callable

    from sdlora.data.snapshot import Snapshot
    from sdlora.store.lineage import SnapshotRecord

LimitOption = Annotated[int, typer.Option(min=1, help="At most so many rows.")]
DigestArgument = Annotated[str, typer.Argument(metavar="DIGEST", help="The first digits of a snapshot's digest.")]

snapshot_app = typer.Typer(rich_markup_mode="rich", add_completion=False, no_args_is_help=True)


@snapshot_app.callback()
def snapshot(context: typer.Context, home: HomeOption = DEFAULT_HOME) -> None:
    """List and compare snapshots: the frozen lists of images that versions were trained on."""
    context.default_map = {name: {"home": str(home)} for name in COMMANDS}


def list_(home: HomeOption = DEFAULT_HOME, limit: LimitOption = 20) -> None:
    """List the snapshots, the newest first, with the versions trained on each."""
    from rich.table import Table

    from deployments.cli.stores import existing_store

    with existing_store(home) as store:
        snapshots = store.snapshots(limit)
    if not snapshots:
        console.print("No snapshot yet. [bold]sdlora run[/] makes one of the accepted images.")
        return
    table = Table("snapshot", "made", "train", "held out", "since", "versions", box=None)
    for record in snapshots:
        parent = (record.parent or "")[:10]
        versions = ", ".join(version.label for version in record.versions) or "none"
        table.add_row(
            record.digest[:10], _when(record), str(record.train_count), str(record.held_out_count), parent, versions
        )
    console.print(table)


def show(
    digest: Annotated[
        str | None, typer.Argument(metavar="[DIGEST]", help="First digits of a snapshot. Default: the newest.")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    limit: LimitOption = 10,
) -> None:
    """Show one snapshot: its images, its changes, and the versions trained on it."""
    from deployments.cli.stores import existing_store
    from sdlora.core.errors import DataError
    from sdlora.data.snapshot import load_snapshot

    with existing_store(home) as store:
        if digest is None:
            newest = store.snapshots(1)
            if not newest:
                raise DataError("No snapshot yet. `sdlora run` makes one of the accepted images.")
            digest = newest[0].digest
        record = store.snapshot(digest)
        rows = load_snapshot(store, record.digest)
        parent = load_snapshot(store, record.parent) if record.parent else None
    multi_captioned = sum(len(row.captions) > 1 for row in rows.rows)
    uncaptioned = sum(row.captions == ("",) for row in rows.rows)
    console.print(f"[bold]Snapshot {record.digest}[/]", soft_wrap=True)
    console.print(f"made {_when(record)}: {record.train_count} images to train on, {record.held_out_count} held out")
    console.print(f"captions: {multi_captioned} images have several, {uncaptioned} have none")
    _print_weights(rows)
    if masked := sum(bool(row.mask) for row in rows.train):
        console.print(f"masks: {masked} of the images to train on have one (training.masked_weight)")
    console.print("versions: " + (", ".join(version.label for version in record.versions) or "none yet"))
    _print_changes(f"since {record.parent[:10]}" if record.parent else "the first snapshot", parent, rows, limit)


def diff(old: DigestArgument, new: DigestArgument, home: HomeOption = DEFAULT_HOME, limit: LimitOption = 10) -> None:
    """Compare two snapshots: images added, removed, or with other captions, weights or masks."""
    from deployments.cli.stores import existing_store
    from sdlora.data.snapshot import load_snapshot

    with existing_store(home) as store:
        before, after = (load_snapshot(store, store.snapshot(digest).digest) for digest in (old, new))
    for snapshot in (before, after):
        console.print(f"{snapshot.digest[:10]}: {len(snapshot.train)} to train on, {len(snapshot.held_out)} held out")
    _print_changes(f"from {before.digest[:10]} to {after.digest[:10]}", before, after, limit)


def _print_weights(snapshot: Snapshot) -> None:
    """Print each weight's number of images and share of training, unless all weights are equal."""
    counts = Counter(row.weight for row in snapshot.train)
    if len(counts) < 2:
        return
    total = sum(weight * count for weight, count in counts.items())
    shares = (f"{count} weigh {weight:g} ({weight * count / total:.0%})" for weight, count in sorted(counts.items()))
    console.print("weights (share of training): " + ", ".join(shares), soft_wrap=True)


def _print_changes(title: str, old: Snapshot | None, new: Snapshot, limit: int) -> None:
    from sdlora.data.changes import compare_snapshots

    changes = compare_snapshots(old, new)
    counts = f"{len(changes.added)} came, {len(changes.removed)} went, {len(changes.recaptioned)} have other captions"
    counts += f", {len(changes.reweighted)} another weight" if changes.reweighted else ""
    counts += f", {len(changes.remasked)} another mask" if changes.remasked else ""
    console.print(f"[bold]{title}:[/] {counts}")
    if old is None:
        return  # all images are new
    before = {row.sha256: row for row in old.rows}
    after = {row.sha256: row for row in new.rows}
    added = [(sha256, after[sha256].captions[0]) for sha256 in changes.added]
    removed = [(sha256, before[sha256].captions[0]) for sha256 in changes.removed]
    changed = [
        (sha256, " | ".join(before[sha256].captions) + " -> " + " | ".join(after[sha256].captions))
        for sha256 in changes.recaptioned
    ]
    changed += [
        (sha256, f"weight {before[sha256].weight:g} -> {after[sha256].weight:g}") for sha256 in changes.reweighted
    ]
    changed += [
        (sha256, f"mask {before[sha256].mask[:10] or 'none'} -> {after[sha256].mask[:10] or 'none'}")
        for sha256 in changes.remasked
    ]
    for sign, lines in (("[green]+[/]", added), ("[red]-[/]", removed), ("[yellow]~[/]", changed)):
        for sha256, text in lines[:limit]:
            console.print(f"  {sign} {sha256[:10]}", end="  ")
            console.print(text, markup=False, overflow="ellipsis", no_wrap=True)
        if len(lines) > limit:
            console.print(f"  {sign} ... and {len(lines) - limit} more (--limit)")


def _when(record: SnapshotRecord) -> str:
    return record.made_at.astimezone().strftime("%Y-%m-%d %H:%M")


COMMANDS: dict[str, Callable[..., None]] = {"list": list_, "show": show, "diff": diff}
for _name, _command in COMMANDS.items():
    snapshot_app.command(_name)(friendly_errors(_command))
