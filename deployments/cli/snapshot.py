"""Command `snapshot`: the image lists that versions were trained on, and their differences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.choosing import named_dataset
from deployments.cli.commands import as_command
from deployments.cli.json_output import print_json
from deployments.cli.options import DEFAULT_HOME, DatasetOption, HomeOption, JsonOption, StyleOfDatasetOption
from deployments.cli.terminal import console, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from sdlora.store.dataset import Dataset
    from sdlora.store.lineage import SnapshotRecord

LimitOption = Annotated[int, typer.Option(min=1, help="At most so many rows.")]
DigestArgument = Annotated[str, typer.Argument(metavar="DIGEST", help="The first digits of a snapshot's digest.")]

snapshot_app = typer.Typer(rich_markup_mode="rich", no_args_is_help=True)


def snapshot(
    context: typer.Context,
    home: HomeOption = DEFAULT_HOME,
    dataset: DatasetOption = None,
    style: StyleOfDatasetOption = None,
) -> None:
    """List and compare snapshots: the frozen lists of images that versions were trained on."""
    context.default_map = {name: {"home": str(home), "dataset": dataset, "style": style} for name in COMMANDS}


def list_(
    home: HomeOption = DEFAULT_HOME,
    limit: LimitOption = 20,
    dataset: DatasetOption = None,
    style: StyleOfDatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the snapshots of all datasets or of one, the newest first, with the versions trained on each."""
    from rich.table import Table

    from deployments.cli.snapshot_output import when
    from deployments.cli.stores import existing_store

    dataset = named_dataset(home, dataset, style)
    with existing_store(home) as store:
        snapshots = store.existing_dataset(dataset).snapshots(limit) if dataset else store.snapshots(limit)
    if as_json:
        print_json({"snapshots": snapshots})
        return
    if not snapshots:
        console.print("No snapshot yet. [bold]sdlora run[/] makes one of the accepted images.")
        return
    table = Table("snapshot", "dataset", "made", "train", "held out", "since", "versions", box=None)
    for record in snapshots:
        parent = (record.parent or "")[:10]
        versions = ", ".join(version.label for version in record.versions) or "none"
        counts = (record.train_count, record.held_out_count)
        table.add_row(*map(plain, (record.digest[:10], record.dataset, when(record), *counts, parent, versions)))
    console.print(table)


def show(
    digest: Annotated[
        str | None,
        typer.Argument(metavar="[DIGEST]", help="First digits of its digest. Default: the newest of the dataset."),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    limit: LimitOption = 10,
    dataset: DatasetOption = None,
    style: StyleOfDatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one snapshot: its images, its changes, and the versions trained on it."""
    from deployments.cli.snapshot_output import print_snapshot, snapshot_object
    from deployments.cli.stores import choose_dataset, existing_store
    from sdlora.data.snapshot import load_snapshot

    dataset = named_dataset(home, dataset, style)
    with existing_store(home) as store:
        if digest is None:
            record = _newest(choose_dataset(store, dataset))
        else:
            record = store.existing_dataset(dataset).snapshot(digest) if dataset else store.snapshot(digest)
        rows = load_snapshot(store, record.digest)
        parent = load_snapshot(store, record.parent) if record.parent else None
    if as_json:
        print_json(snapshot_object(record, rows, parent))
    else:
        print_snapshot(record, rows, parent, limit)


def _newest(dataset: Dataset) -> SnapshotRecord:
    from sdlora.core.errors import DataError

    newest = dataset.snapshots(1)
    if not newest:
        raise DataError(f"No snapshot yet of dataset {dataset.name!r}. `sdlora run` makes one of the accepted images.")
    return newest[0]


def diff(
    old: DigestArgument,
    new: DigestArgument,
    home: HomeOption = DEFAULT_HOME,
    limit: LimitOption = 10,
    as_json: JsonOption = False,
) -> None:
    """Compare two snapshots: images added, removed, or with other captions, weights or masks."""
    from deployments.cli.snapshot_output import changes_object, print_changes
    from deployments.cli.stores import existing_store
    from sdlora.data.snapshot import load_snapshot

    with existing_store(home) as store:
        records = [store.snapshot(digest) for digest in (old, new)]
        before, after = (load_snapshot(store, record.digest) for record in records)
    if as_json:
        print_json({"old": records[0], "new": records[1], "changes": changes_object(before, after)})
        return
    for record in records:
        console.print(f"{record.digest[:10]}: {record.train_count} to train on, {record.held_out_count} held out")
    print_changes(f"from {before.digest[:10]} to {after.digest[:10]}", before, after, limit)


COMMANDS: dict[str, Callable[..., None]] = {"list": list_, "show": show, "diff": diff}
for _name, _command in COMMANDS.items():
    snapshot_app.command(_name)(as_command(_command))
snapshot_app.callback()(as_command(snapshot))
