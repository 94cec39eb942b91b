"""Command `datasets`: the named sets of images that styles learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.commands import as_command
from deployments.cli.images import WhoOption, account_name
from deployments.cli.json_output import print_json
from deployments.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from deployments.cli.selecting import (
    CaptionOption,
    IdOption,
    LicenceOption,
    SourceOption,
    StarsOption,
    VerdictOption,
    require_conditions,
    selection_of,
)
from deployments.cli.terminal import console, hint, plain

if TYPE_CHECKING:
    from collections.abc import Callable

NameArgument = Annotated[str, typer.Argument(metavar="DATASET", help="The name of a dataset.")]
AllOption = Annotated[bool, typer.Option("--all", help="All images, without any condition.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say which images it would be, and change nothing.")]

datasets_app = typer.Typer(rich_markup_mode="rich", no_args_is_help=True)


def datasets(context: typer.Context, home: HomeOption = DEFAULT_HOME) -> None:
    """List datasets and build them out of one another. Each image is kept once, whatever datasets it is in."""
    context.default_map = {name: {"home": str(home)} for name in COMMANDS}


def list_(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """List the datasets with their numbers of images and snapshots."""
    from rich.table import Table

    from deployments.cli.stores import existing_store

    with existing_store(home) as store:
        figures, count = store.datasets(), store.image_count()
    if as_json:
        print_json({"datasets": figures, "image_count": count})
        return
    table = Table("dataset", "images", "accepted", "rejected", "not judged", "snapshots", "versions", box=None)
    for row in figures:
        name = f"{row.name} (deleted)" if row.deleted_at else row.name
        counts = (row.images, row.accepted, row.rejected, row.pending, row.snapshots, len(row.versions))
        table.add_row(plain(name), *(f"{number:,}" for number in counts))
    console.print(table)
    console.print(f"{count:,} different images in all.")


def show(name: NameArgument, home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show one dataset: its sources, verdicts, licences, newest snapshot, and the versions trained on it."""
    from deployments.cli.datasets_output import dataset_object, print_dataset
    from deployments.cli.stores import existing_store

    with existing_store(home) as store:
        facts = dataset_object(store.existing_dataset(name))
    if as_json:
        print_json(facts)
    else:
        print_dataset(facts)


def add(
    name: NameArgument,
    other: Annotated[
        str | None, typer.Option("--from", metavar="OTHER", help="The dataset that has them. Without it: removed ones.")
    ] = None,
    source: SourceOption = None,
    caption: CaptionOption = None,
    licence: LicenceOption = None,
    min_stars: StarsOption = None,
    verdict: VerdictOption = None,
    ids: IdOption = None,
    everything: AllOption = False,
    without_captions: Annotated[bool, typer.Option("--without-captions", help="Leave its captions behind.")] = False,
    dry_run: DryRunOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Add images of another dataset, or bring back removed ones. Nothing is copied, and nothing is decoded again.

    The captions in force come along; captions by hand and of the dataset's own sources win over them. Masks, repeats
    and verdicts do not come along.

    Example: [bold]sdlora datasets add ink --from drawings --licence "CC0*" --min-stars 4[/]
    """
    from deployments.cli.datasets_output import print_selected
    from deployments.cli.stores import existing_store

    selection = selection_of(source, caption, licence, min_stars, verdict, ids)
    require_conditions(selection, everything)
    with existing_store(home) as store:
        origin = store.existing_dataset(other or name)
        if dry_run:
            rows = origin.select(selection) if other else origin.removed(selection)
            print_selected(rows, "would join", name)
            return
        if other is None:
            back = origin.bring_back(selection)
            console.print(f"{len(back):,} images are back in {name}.", markup=False)
        else:
            added = store.dataset(name).add_from(origin, selection, with_captions=not without_captions)
            console.print(
                f"{len(added.new):,} images joined {name}, {len(added.known):,} were there before.", markup=False
            )
    _print_note()


def remove(
    name: NameArgument,
    source: SourceOption = None,
    caption: CaptionOption = None,
    licence: LicenceOption = None,
    min_stars: StarsOption = None,
    verdict: VerdictOption = None,
    ids: IdOption = None,
    everything: AllOption = False,
    who: WhoOption = None,
    dry_run: DryRunOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Remove images from a dataset. They stay in the database and in other datasets, and do not return by themselves.

    Example: [bold]sdlora datasets remove ink --source "photos/2019/*"[/]
    """
    from deployments.cli.datasets_output import print_selected
    from deployments.cli.stores import existing_store

    selection = selection_of(source, caption, licence, min_stars, verdict, ids)
    require_conditions(selection, everything)
    with existing_store(home) as store:
        dataset = store.existing_dataset(name)
        if dry_run:
            print_selected(dataset.select(selection), "would leave", name)
            return
        removed = dataset.remove(selection, who or account_name())
    console.print(f"{len(removed):,} images left {name}. [bold]sdlora datasets add {name}[/] brings them back.")
    _print_note()


def rename(
    name: NameArgument, new_name: Annotated[str, typer.Argument(metavar="NEW")], home: HomeOption = DEFAULT_HOME
) -> None:
    """Give a dataset another name. Styles that learn from it need the new name in their files."""
    from deployments.cli.choosing import learning_from
    from deployments.cli.stores import existing_store
    from sdlora.core.errors import ConfigError

    with existing_store(home) as store:
        before, after = learning_from(home, name), learning_from(home, new_name)
        if before and after and name in store.dataset_names() and new_name not in store.dataset_names():
            raise ConfigError(
                f"{after[0].file}: the style {after[0].name} will fill the dataset {new_name}, and {before[0].name} "
                f"learns from {name}. Choose another name. If both are to share the images, first set data.dataset: "
                f"{new_name} in {before[0].file}."
            )
        store.rename_dataset(name, new_name)
    console.print(f"{name} is {new_name} now. Styles that learn from it need [bold]data.dataset: {new_name}[/].")
    if after:
        console.print(plain(f"Learning from it now: {', '.join(style.name for style in after)}."))


def delete(
    name: NameArgument,
    force: Annotated[bool, typer.Option("--force", help="Although snapshots stand on it; these are kept.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Delete a dataset: its captions, verdicts and sources. Its images stay in the database and in other datasets."""
    from deployments.cli.stores import existing_store

    with existing_store(home) as store:
        count = store.existing_dataset(name).counts().total
        if not yes and not typer.confirm(f"Delete dataset {name} with the captions and verdicts of {count:,} images?"):
            console.print("Nothing was deleted.")
            raise typer.Exit(1)
        is_kept = store.delete_dataset(name, force=force)
    console.print(f"{name} is deleted" + ("; its name and its snapshots are kept." if is_kept else "."))


def _print_note() -> None:
    hint("The next [bold]sdlora run[/] or [bold]sdlora collect[/] judges them; snapshots stay as they are.")


COMMANDS: dict[str, Callable[..., None]] = {
    "list": list_,
    "show": show,
    "add": add,
    "remove": remove,
    "rename": rename,
    "delete": delete,
}
for _name, _command in COMMANDS.items():
    datasets_app.command(_name)(as_command(_command))
datasets_app.callback()(as_command(datasets))
