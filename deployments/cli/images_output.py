"""Output of `sdlora images show` and of decisions: the details of one image, and the effects on others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from deployments.cli.images_list import in_brief
from deployments.cli.terminal import console, plain
from sdlora.store.details import DrawnDetails, ImageDetails

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.takedown import ClearedCopies
    from sdlora.store.curation import Purged
    from sdlora.store.details import SimilarImage, SourcedCaption
    from sdlora.store.lineage import ImageLineage
    from sdlora.store.records import ImageRecord


def details_object(details: ImageDetails | DrawnDetails) -> dict[str, object]:
    """Return the details of an image under keys that do not depend on whether it was collected, drawn or both."""
    collected = details if isinstance(details, ImageDetails) else None
    return {
        "sha256": details.record.sha256 if isinstance(details, ImageDetails) else details.sha256,
        "image": collected and collected.record,
        "datasets": collected.lineage.datasets if collected else (),
        "captions": collected.captions if collected else (),
        "mask": collected and collected.mask,
        "checks": collected.checks if collected else (),
        "similar": collected.similar if collected else (),
        "overrides": collected.overrides if collected else (),
        "ratings": details.ratings,
        "snapshots": collected.appearances if collected else (),
        "trained_versions": collected.trained_versions if collected else (),
        "generations": details.generations,
    }


def print_details(details: ImageDetails | DrawnDetails) -> None:
    """Print one image's facts, its decisions with reasons, and the snapshots and versions that hold it."""
    if isinstance(details, DrawnDetails):
        _line("image", details.sha256)
        _line("verdict", "drawn by a model, not collected")
    else:
        _print_collected(details)
    ratings = [
        [
            f"{rating.stars} of 5",
            rating.rater,
            f"{rating.rated_at:%Y-%m-%d}",
            rating.why,
            "taken back" if rating.withdrawn_at else "counts",
        ]
        for rating in details.ratings
    ]
    _table("ratings", ["stars", "who", "when", "why", ""], ratings)
    if isinstance(details, ImageDetails):
        _print_lineage(details)
    generations = [
        [
            image.model_version,
            image.prompt,
            image.negative_prompt or "none",
            str(image.seed),
            str(image.steps),
            f"{image.guidance_scale:g}",
        ]
        for image in details.generations
    ]
    _table("drawn by", ["model", "prompt", "negative prompt", "seed", "steps", "guidance"], generations)


def _print_collected(details: ImageDetails) -> None:
    record = details.record
    size = f"{record.width} x {record.height} {record.format or ''}" if record.width else "not decoded"
    verdict = f"{in_brief(record)}: {record.reason or 'no check has run yet'}"
    _line("image", record.sha256)
    others = [name for name in details.lineage.datasets if name != record.dataset]
    _line("dataset", record.dataset + (f", also in {', '.join(others)}" if others else ""))
    _line("size", f"{size}, {record.byte_size:,} bytes")
    _line("verdict", verdict)
    _line("source", f"{record.source or 'not stated'}, licence: {record.licence or 'not stated'}")
    _line("collected", f"{record.collected_at.astimezone():%Y-%m-%d %H:%M}")
    if details.mask:
        text = details.mask.problem or f"{details.mask.sha256}, {details.mask.byte_size:,} bytes"
        _line("mask", f"{details.mask.path}: {text}")
    _table("seen as", None, [[name] for name in record.files])
    captions = [
        [caption.text, caption.origin, _caption_source(caption), "yes" if caption.counts else "no"]
        for caption in details.captions
    ]
    _table("captions", ["text", "origin", "from", "trained with"], captions)
    checks = [
        [check.name, "" if check.score is None else f"{check.score:.4g}", check.verdict, check.reason]
        for check in details.checks
    ]
    _table("checks", ["check", "score", "verdict", "reason"], checks)
    similar = [
        [image.sha256[:10], f"{image.difference:.1f}", image.verdict or "not judged"] for image in details.similar
    ]
    _table("looks like", ["image", "grey levels apart", "verdict"], similar)
    overrides = [
        [
            override.verdict,
            override.who,
            f"{override.made_at:%Y-%m-%d}",
            override.why,
            "taken back" if override.withdrawn_at else "counts",
        ]
        for override in details.overrides
    ]
    _table("people's decisions", ["verdict", "who", "when", "why", ""], overrides)


def _print_lineage(details: ImageDetails) -> None:
    snapshots = [
        [
            appearance.snapshot.digest[:10],
            appearance.snapshot.dataset,
            appearance.split,
            f"{appearance.weight:g}",
            " | ".join(appearance.captions),
            _labels(appearance.snapshot.versions),
        ]
        for appearance in details.appearances
    ]
    _table("snapshots", ["snapshot", "dataset", "side", "weight", "captions then", "versions"], snapshots)
    if details.appearances or details.lent_captions:
        console.print(f"Learnt from it: [bold]{escape(_labels(details.trained_versions))}[/]")


def _caption_source(caption: SourcedCaption) -> str:
    source = caption.source or "a person"
    return f"{source}, on its copy {caption.copy[:10]}" if caption.copy else source


def print_look_alikes(similar: tuple[SimilarImage, ...]) -> None:
    """Print the look-alikes that a decision about an image does not cover."""
    if similar:
        names = ", ".join(
            f"{image.sha256[:10]} ({image.verdict or 'not judged'} in {image.dataset})" for image in similar
        )
        console.print(f"  These look like it and are not touched: {names}", soft_wrap=True)


def print_undone(record: ImageRecord) -> None:
    """Print the new verdict of an image after a person's decision about it was taken back."""
    name = record.sha256[:10]
    if record.verdict is None:
        console.print(
            f"{name} is judged again by the next [bold]sdlora collect[/] or [bold]sdlora run[/]: it is not measured "
            "yet, or other images were judged under other settings (name the style with --style).",
            soft_wrap=True,
        )
        return
    text = f"{name} is judged by the checks again: {in_brief(record)}: {record.reason or ''}"
    console.print(plain(text), soft_wrap=True)


def print_purged(purged: Purged, cleared: ClearedCopies, elsewhere: Sequence[str]) -> None:
    """Print the effects of a takedown, and the remaining work by hand."""
    lineage = purged.lineage
    sha256 = lineage.sha256
    console.print(f"[bold]{sha256[:10]}[/] {escape(purged.override.reason)}", soft_wrap=True)
    console.print(
        f"  Its bytes are gone; {cleared.cache_files} files of caches were cleared. Collecting it is refused."
    )
    for kind, paths in (("Pages", cleared.pages), ("Pictures", cleared.pictures)):
        if paths:
            console.print(
                f"  {kind} that no longer show it: " + ", ".join(map(str, paths)), markup=False, soft_wrap=True
            )
    if cleared.runs:
        folders = ", ".join(map(str, cleared.runs))
        console.print(
            f"  Unpublished weights that learnt from it were removed: {folders}", markup=False, soft_wrap=True
        )
    for folder in cleared.busy_runs:
        console.print(
            f"  A training in {folder} has not stopped yet. It stops before its next checkpoint and removes what it "
            "learnt. Type the same command again to be sure.",
            markup=False,
            soft_wrap=True,
        )
    if cleared.bases:
        names = ", ".join(map(str, cleared.bases))
        console.print(f"  Base models that learnt from it, to remove by hand: {names}", markup=False, soft_wrap=True)
    if purged.copies:
        names = ", ".join(copy[:10] for copy in purged.copies)
        console.print(f"  Its copies stay left out ([bold]sdlora images undo[/] gives one back): {names}")
    _print_affected(lineage)
    _print_remaining_work(lineage, elsewhere)


def _print_affected(lineage: ImageLineage) -> None:
    """Print the datasets, snapshots, versions and styles of a purged image."""
    if lineage.datasets:
        console.print(f"  Datasets that had it: {', '.join(lineage.datasets)}")
    if lineage.lent_captions:
        digests = ", ".join(appearance.snapshot.digest[:10] for appearance in lineage.lent_captions)
        kept = ", ".join(sha256[:10] for sha256 in lineage.kept_for)
        console.print(f"  Snapshots that hold its captions, on image {kept}: {digests}")
        console.print(f"  Versions that learnt from them: [bold]{escape(_labels(lineage.trained_versions))}[/]")
    if not lineage.appearances:
        trained_here = " that was trained here" if lineage.adopted_versions else ""
        console.print(f"  No snapshot holds it: no version{trained_here} has seen it.")
    else:
        digests = ", ".join(appearance.snapshot.digest[:10] for appearance in lineage.appearances)
        console.print(f"  Snapshots that hold it: {digests}")
        console.print(f"  Versions that learnt from it: [bold]{escape(_labels(lineage.trained_versions))}[/]")
        measured_versions = [
            version
            for appearance in lineage.appearances
            if appearance.split == "held_out"
            for version in appearance.snapshot.versions
        ]
        if measured_versions:
            console.print(f"  Versions that were only measured on it: {escape(_labels(tuple(measured_versions)))}")
    if lineage.adopted_versions:
        names = ", ".join(version.label for version in lineage.adopted_versions)
        console.print(
            f"  Versions adopted from files, which may have learnt from it: [bold]{escape(names)}[/]", soft_wrap=True
        )
    if lineage.trained_styles:
        console.print(
            f"  Styles to train again: [bold]{escape(', '.join(lineage.trained_styles))}[/]. This trains them: "
            f"[bold]sdlora run --affected-by {lineage.sha256[:10]}[/]",
            soft_wrap=True,
        )


def _print_remaining_work(lineage: ImageLineage, elsewhere: Sequence[str]) -> None:
    if elsewhere:
        console.print("  Remove by hand, in the MLflow that MLFLOW_TRACKING_URI names (its pages may show the image):")
        for line in elsewhere:
            console.print(f"    - {line}", markup=False, soft_wrap=True)
    console.print(
        "  Remove by hand all copies in other places: reports, data pages and releases, backups of this folder"
        + (", and the weights of the versions that learnt from it." if lineage.trained_versions else "."),
        soft_wrap=True,
    )


def _labels(versions: tuple) -> str:
    return ", ".join(version.label for version in versions) or "none"


def _line(label: str, text: str) -> None:
    console.print(Text(f"{label:<11}", style="bold") + plain(text), soft_wrap=True)


def _table(title: str, header: list[str] | None, rows: list[list[str]]) -> None:
    if not rows:
        return
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, show_header=header is not None, padding=(0, 2)
    )
    for name in header or [""]:
        table.add_column(name, header_style="dim", overflow="fold")
    for row in rows:
        table.add_row(*map(plain, row))
    console.print(table)
