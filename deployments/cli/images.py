"""Command `images`: list images, show one, and overrule the checks."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.choosing import data_settings, named_dataset, named_style
from deployments.cli.commands import as_command
from deployments.cli.json_output import print_json
from deployments.cli.options import (
    DEFAULT_HOME,
    DatasetOption,
    HomeOption,
    JsonOption,
    StyleFileOption,
    StyleOfDatasetOption,
    data_page,
)
from deployments.cli.selecting import CaptionOption, LicenceOption, SourceOption, StarsOption, selection_of
from deployments.cli.stages import Stages
from deployments.cli.terminal import console, error_console, hint, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from sdlora.config import PipelineConfig
    from sdlora.store.details import DrawnDetails, ImageDetails
    from sdlora.store.records import Verdict
    from sdlora.store.selection import Selection

ImageArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The first digits of the image, as listed, or the path of its file.")
]
ImagesArgument = Annotated[
    list[str], typer.Argument(metavar="ID...", help="The first digits of images, as listed, or paths of their files.")
]
RejectedOption = Annotated[bool, typer.Option("--rejected", help="Only images that were left out.")]
AcceptedOption = Annotated[bool, typer.Option("--accepted", help="Only images that are trained on or held out.")]
DrawnOption = Annotated[bool, typer.Option("--drawn", help="Images drawn by `sdlora generate`, the newest first.")]
ReasonOption = Annotated[str | None, typer.Option(help="Only rejected by this check, such as near_duplicate.")]
LimitOption = Annotated[
    int | None, typer.Option(min=1, help="At most so many rows. Default: 50; all with --json.", show_default=False)
]
WhyOption = Annotated[str, typer.Option("--why", help="The reason, kept with the decision.")]
WhoOption = Annotated[str | None, typer.Option("--by", help="Who decides. Default: the name of the account.")]

images_app = typer.Typer(rich_markup_mode="rich")


def images(
    context: typer.Context,
    home: HomeOption = DEFAULT_HOME,
    rejected: RejectedOption = False,
    accepted: AcceptedOption = False,
    drawn: DrawnOption = False,
    reason: ReasonOption = None,
    limit: LimitOption = None,
    dataset: DatasetOption = None,
    style: StyleOfDatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the images of a dataset with their verdicts and reasons; show one image, or overrule its verdict."""
    if context.invoked_subcommand is None:
        list_(home, rejected, accepted, drawn, reason, limit=limit, dataset=dataset, style=style, as_json=as_json)
    else:  # `sdlora images --home X show ID` means `sdlora images show ID --home X`
        context.default_map = {name: {"home": str(home), "dataset": dataset, "style": style} for name in COMMANDS}


def list_(
    home: HomeOption = DEFAULT_HOME,
    rejected: RejectedOption = False,
    accepted: AcceptedOption = False,
    drawn: DrawnOption = False,
    reason: ReasonOption = None,
    source: SourceOption = None,
    caption: CaptionOption = None,
    licence: LicenceOption = None,
    min_stars: StarsOption = None,
    limit: LimitOption = None,
    dataset: DatasetOption = None,
    style: StyleOfDatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """List collected images of a dataset with their verdicts, or drawn ones with their prompts."""
    from deployments.cli.images_list import list_collected, list_drawn

    if rejected + accepted + drawn > 1 or (reason and (accepted or drawn)):
        raise typer.BadParameter("choose one of --rejected (with --reason), --accepted, --drawn")
    if drawn:
        list_drawn(home, limit, as_json)
        return
    verdict: Verdict | None = "rejected" if rejected or reason else "accepted" if accepted else None
    selection: Selection = selection_of(source, caption, licence, min_stars, verdict, rejected_by=reason)
    list_collected(home, named_dataset(home, dataset, style), selection, limit, as_json)


def show(
    image: ImageArgument,
    home: HomeOption = DEFAULT_HOME,
    dataset: DatasetOption = None,
    style: StyleOfDatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show everything known about one image, collected or drawn: captions, checks, look-alikes, snapshots, versions."""
    from deployments.cli.image_ids import image_id
    from deployments.cli.images_output import details_object, print_details
    from deployments.cli.stores import dataset_of_image, existing_store

    details: ImageDetails | DrawnDetails
    dataset = named_dataset(home, dataset, style)
    with existing_store(home) as store:
        sha256 = image_id(store, image)
        if store.is_collected(sha256):
            details = dataset_of_image(store, dataset, sha256).details(sha256)
        else:
            details = store.drawn_details(sha256)
    if as_json:
        print_json(details_object(details))
    else:
        print_details(details)


def accept(
    images: ImagesArgument,
    why: WhyOption,
    who: WhoOption = None,
    home: HomeOption = DEFAULT_HOME,
    dataset: DatasetOption = None,
    style: StyleOfDatasetOption = None,
) -> None:
    """Keep images regardless of the checks, now and under any thresholds."""
    from deployments.cli.image_ids import image_ids
    from deployments.cli.stores import dataset_of_image, existing_store

    dataset = named_dataset(home, dataset, style)
    with existing_store(home) as store:
        for image in image_ids(store, images):
            sha256 = dataset_of_image(store, dataset, image).decide(image, "accepted", why, who or account_name())
            console.print(f"{sha256[:10]} is accepted. Take it back: [bold]sdlora images undo {sha256[:10]}[/]")
    _print_next_run_note()


def reject(
    images: ImagesArgument,
    why: WhyOption,
    who: WhoOption = None,
    home: HomeOption = DEFAULT_HOME,
    dataset: DatasetOption = None,
    style: StyleOfDatasetOption = None,
) -> None:
    """Leave images out regardless of the checks. Their bytes stay; [bold]purge[/] removes them."""
    from deployments.cli.image_ids import image_ids
    from deployments.cli.images_output import print_look_alikes
    from deployments.cli.stores import dataset_of_image, existing_store

    dataset = named_dataset(home, dataset, style)
    with existing_store(home) as store:
        for image in image_ids(store, images):
            chosen = dataset_of_image(store, dataset, image)
            sha256 = chosen.decide(image, "rejected", why, who or account_name())
            console.print(f"{sha256[:10]} is left out. Take it back: [bold]sdlora images undo {sha256[:10]}[/]")
            print_look_alikes(chosen.details(sha256).similar)
    _print_next_run_note()


def undo(
    images: ImagesArgument,
    who: WhoOption = None,
    config: StyleFileOption = None,
    home: HomeOption = DEFAULT_HOME,
    dataset: DatasetOption = None,
    style: StyleOfDatasetOption = None,
) -> None:
    """Take a person's decision back. The checks decide again, immediately if they have measured the image."""
    from deployments.cli.image_ids import image_ids
    from deployments.cli.images_output import print_undone
    from deployments.cli.stores import dataset_of_image, existing_store, only_dataset
    from sdlora.data.decide_images import undo_decision

    given = named_style(home, style, config)
    with existing_store(home) as store:
        name = dataset or (only_dataset(store, given) if given else None)
        for image in image_ids(store, images):
            chosen = dataset_of_image(store, name, image)
            settings = data_settings(home, given, chosen.name)
            print_undone(undo_decision(chosen, image, who or account_name(), settings))
    _print_next_run_note()


def rate(
    images: ImagesArgument,
    stars: Annotated[int | None, typer.Option("--stars", metavar="N", help="1 to 5; 3 changes nothing.")] = None,
    why: Annotated[str, typer.Option("--why", help="The reason, kept with the rating.")] = "",
    reset: Annotated[bool, typer.Option("--reset", help="Take your rating back.")] = False,
    who: WhoOption = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Rate collected or drawn images: training sees good ones more often ([bold]weight_by[/]).

    Each star above three doubles the frequency; each star below halves it. The mean of several people's ratings counts.
    """
    from deployments.cli.image_ids import image_ids
    from deployments.cli.stores import existing_store

    if (stars is None) != reset:
        raise typer.BadParameter("give --stars 1 to 5, or --reset to take your rating back")
    with existing_store(home) as store:
        for image in image_ids(store, images):
            if stars is None:
                sha256 = store.undo_rating(image, who or account_name())
                console.print(f"{sha256[:10]} has no rating of yours now.")
            else:
                sha256 = store.rate(image, stars, who or account_name(), why)
                console.print(f"{sha256[:10]} has {stars} of 5 stars of yours.")
    _print_next_run_note()


def caption(
    image: Annotated[str | None, typer.Argument(metavar="[ID]", help="The first digits of the image.")] = None,
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT...", help="One caption or several.")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Let the sources' captions count again.")] = False,
    auto: Annotated[
        bool, typer.Option("--auto", help="Let data.caption_model caption all images that only have a file name.")
    ] = False,
    config: StyleFileOption = None,
    home: HomeOption = DEFAULT_HOME,
    dataset: DatasetOption = None,
    style: StyleOfDatasetOption = None,
) -> None:
    """Write captions by hand; they override those of all sources. Or let a model write missing captions.

    Example: [bold]sdlora images caption 3f2a91 "a red car" "a car at night"[/]
    """
    from deployments.cli.image_ids import image_id
    from deployments.cli.stores import dataset_of_image, existing_store

    if auto:
        if image:
            raise typer.BadParameter("--auto captions every image without a caption; do not name an image")
        _caption_all(home, dataset, named_style(home, style, config))
        return
    if image is None or bool(texts) == reset:
        raise typer.BadParameter(
            "name an image, and give captions, or --reset to let the sources' captions count again"
        )
    dataset = named_dataset(home, dataset, style)
    with existing_store(home) as store:
        sha256 = image_id(store, image)
        record = dataset_of_image(store, dataset, sha256).set_captions(sha256, texts or [])
    console.print(f"{record.sha256[:10]} has these captions now:")
    for text in record.captions or ("(none)",):
        console.print(f"  - {text}", markup=False)
    _print_next_run_note()


def _caption_all(home: Path, dataset: str | None, given: PipelineConfig | None) -> None:
    from deployments.cli.stores import chosen_dataset
    from sdlora.data.image_models.captioning import write_captions

    with chosen_dataset(home, dataset, given) as chosen, Stages() as stages:
        written = write_captions(chosen, data_settings(home, given, chosen.name), stages.on_progress)
    console.print(f"{len(written)} images have a caption by the model now; captions of sources and people override it.")
    for sha256, text in list(written.items())[:10]:
        console.print(f"  {sha256[:10]} {text}", markup=False)
    if written:
        _print_next_run_note()


def purge(
    images: ImagesArgument,
    why: WhyOption,
    who: WhoOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Take images down in every dataset, for good: bytes and captions go, and collecting them again is refused.

    Their pictures go from caches, pages and grids in the state folder. A training that uses them stops, and unpublished
    weights that learnt from them go. The output lists snapshots that hold them,
    versions that learnt from them, images that look alike, and copies to remove elsewhere.
    """
    from deployments.cli.image_ids import image_ids
    from deployments.cli.images_output import print_look_alikes, print_purged
    from deployments.cli.stores import existing_store
    from deployments.takedown import clear_copies, copies_elsewhere

    with existing_store(home) as store:
        digests = [store.lineage(image).sha256 for image in image_ids(store, images)]
        if not yes:
            names = ", ".join(sha256[:10] for sha256 in digests)
            if not typer.confirm(f"Remove the bytes of {names} for good? This cannot be undone."):
                console.print("Nothing was removed.")
                raise typer.Exit(1)
        for sha256 in digests:
            purged = store.purge(sha256, why, who or account_name())
            with error_console.status("Removing its copies; a training that uses it stops first ..."):
                cleared = clear_copies(store, purged.lineage)
            print_purged(purged, cleared, copies_elsewhere(home, purged.lineage))
            print_look_alikes(tuple(image for image in purged.similar if image.sha256 not in purged.copies))


def page(
    home: HomeOption = DEFAULT_HOME,
    config: StyleFileOption = None,
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Default: pages/DATASET/data.html in --home.")
    ] = None,
    dataset: DatasetOption = None,
    style: StyleOfDatasetOption = None,
) -> None:
    """Write the data page: rejected images with reasons, near duplicates side by side, and changes."""
    from deployments.cli.stores import chosen_dataset
    from sdlora.core.files import require_writable
    from sdlora.release.data_page import write_data_page

    given = named_style(home, style, config)
    with chosen_dataset(home, dataset, given) as chosen:
        path = out or data_page(home, chosen.name)
        require_writable(path.parent, "--out")
        written = write_data_page(
            chosen, data_settings(home, given, chosen.name), path, title=f"Images of {chosen.name}"
        )
    if written.trouble:
        console.print(
            plain(f"The data page does not show the changes. {written.trouble}"), style="yellow", soft_wrap=True
        )
    console.print(plain(f"Open it in a browser: {written.path}"), soft_wrap=True)


def account_name() -> str:
    """Return the name of the account that runs the command, or "somebody" if the system knows none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run under a user id without a name
        return "somebody"


def _print_next_run_note() -> None:
    hint("The change counts from the next [bold]sdlora run[/]; existing snapshots stay as they are.")


COMMANDS: dict[str, Callable[..., None]] = {
    "list": list_,
    "show": show,
    "accept": accept,
    "reject": reject,
    "undo": undo,
    "rate": rate,
    "caption": caption,
    "purge": purge,
    "page": page,
}
for _name, _command in COMMANDS.items():
    images_app.command(_name)(as_command(_command))
images_app.callback(invoke_without_command=True)(as_command(images))
