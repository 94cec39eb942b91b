"""Options that select images of a dataset by what is recorded of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from sdlora.store.records import Verdict
    from sdlora.store.selection import Selection

SourceOption = Annotated[
    str | None, typer.Option("--source", help="Only images that a source shows: photos, or photos/2024/*.")
]
CaptionOption = Annotated[str | None, typer.Option("--caption", help="Only images with this text in a caption.")]
LicenceOption = Annotated[str | None, typer.Option("--licence", help="Only images under this licence, such as CC0*.")]
StarsOption = Annotated[
    float | None, typer.Option("--min-stars", min=1, max=5, help="Only images that people rate so, on average.")
]
VerdictOption = Annotated[str | None, typer.Option("--verdict", help="Only accepted or only rejected images.")]
IdOption = Annotated[
    list[str] | None, typer.Option("--id", metavar="ID", help="Only images whose id begins so; repeatable.")
]


def selection_of(
    source: str | None,
    caption: str | None,
    licence: str | None,
    min_stars: float | None,
    verdict: str | None,
    ids: list[str] | None = None,
    rejected_by: str | None = None,
) -> Selection:
    """Return the selection of the options; all conditions have to hold."""
    from sdlora.store.selection import Selection

    if verdict not in (None, "accepted", "rejected"):
        raise typer.BadParameter(f"{verdict!r} is no verdict; expected accepted or rejected", param_hint="--verdict")
    return Selection(
        verdict=cast("Verdict | None", verdict),
        rejected_by=rejected_by,
        source=source,
        caption=caption,
        licence=licence,
        min_stars=min_stars,
        ids=tuple(ids or ()),
    )


def require_conditions(selection: Selection, everything: bool) -> None:
    """Refuse a change of all images that was not asked for with --all."""
    if selection.is_empty and not everything:
        raise typer.BadParameter("say which images, with --source, --caption, --licence and the like, or --all")
    if everything and not selection.is_empty:
        raise typer.BadParameter("--all takes every image; leave it out, or leave the other conditions out")
