"""Output of `sdlora images`: the list of images, and the details of one image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from deployments.cli.stores import existing_store, has_store
from deployments.cli.terminal import console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.takedown import ClearedCopies
    from sdlora.store.curation import Purged
    from sdlora.store.details import ImageDetails, SimilarImage
    from sdlora.store.records import ImageRecord, Verdict


def print_images(home: Path, verdict: Verdict | None, reason: str | None, limit: int) -> None:
    """Print the list of images with its counts."""
    if not has_store(home):
        console.print(f"No images yet in {home}. Collect some: [bold]sdlora collect FOLDER[/]")
        return
    with existing_store(home) as store:
        rows = store.images(verdict, rejected_by=reason, limit=limit)
        counts = store.counts()
    if reason and not rows:
        names = ", ".join(counts.rejected_by) or "none"
        console.print(f"No image was rejected by {reason!r}. Checks that rejected some: {names}.", markup=False)
        return
    table = Table(box=None, header_style="bold", expand=True)
    for title in ("image", "file"):
        table.add_column(title, no_wrap=True, max_width=24)
    if verdict == "rejected":
        table.add_column("reason", ratio=1)
    else:
        table.add_column("caption", no_wrap=True, ratio=1)
        table.add_column("verdict", no_wrap=True)
    for row in rows:
        last_cells = (row.reason or "",) if verdict == "rejected" else ((row.captions or ("",))[0], _in_brief(row))
        table.add_row(*(Text(cell) for cell in (row.sha256[:10], (row.files or ("",))[0], *last_cells)))
    console.print(table)
    checks = ", ".join(f"{count} {check}" for check, count in counts.rejected_by.items())
    console.print(
        f"{counts.total} images: {counts.accepted} accepted, {counts.rejected} rejected"
        + (f" ({checks})" if checks else "")
        + (f", {counts.pending} not yet judged" if counts.pending else "")
        + (f"; the first {limit} are shown (--limit)" if len(rows) == limit < counts.total else "")
    )
    console.print("Look at one: [bold]sdlora images show ID[/]")


def print_details(details: ImageDetails) -> None:
    """Print one image's facts, its decisions with reasons, and the snapshots and versions that hold it."""
    record = details.record
    size = f"{record.width} x {record.height} {record.format or ''}" if record.width else "not decoded"
    verdict = Text.assemble(_in_brief(record), ": ", record.reason or "no check has run yet")
    _line("image", record.sha256)
    _line("size", f"{size}, {record.byte_size:,} bytes")
    _line("verdict", verdict)
    _line("source", f"{record.source or 'not stated'}, licence: {record.licence or 'not stated'}")
    _line("collected", f"{record.collected_at.astimezone():%Y-%m-%d %H:%M}")
    if details.mask:
        text = details.mask.problem or f"{details.mask.sha256}, {details.mask.byte_size:,} bytes"
        _line("mask", f"{details.mask.path}: {text}")
    _table("seen as", None, [[name] for name in record.files])
    captions = [
        [caption.text, caption.origin, caption.source or "a person", "yes" if caption.counts else "no"]
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
    snapshots = [
        [
            appearance.snapshot.digest[:10],
            appearance.split,
            f"{appearance.weight:g}",
            " | ".join(appearance.captions),
            _labels(appearance.snapshot.versions),
        ]
        for appearance in details.appearances
    ]
    _table("snapshots", ["snapshot", "side", "weight", "captions then", "versions"], snapshots)
    generations = [[image.model_version, image.prompt, str(image.seed)] for image in details.generations]
    _table("drawn by", ["model", "prompt", "seed"], generations)
    if details.appearances:
        console.print(f"Learnt from it: [bold]{_labels(details.trained_versions)}[/]")


def print_look_alikes(similar: tuple[SimilarImage, ...]) -> None:
    """Print the look-alikes that a decision about an image does not cover."""
    if similar:
        names = ", ".join(f"{image.sha256[:10]} ({image.verdict or 'not judged'})" for image in similar)
        console.print(f"  These look like it and are not touched: {names}", soft_wrap=True)


def print_undone(record: ImageRecord) -> None:
    """Print the new verdict of an image after a person's decision about it was taken back."""
    name = record.sha256[:10]
    if record.verdict is None:
        console.print(
            f"{name} is judged again by the next [bold]sdlora collect[/] or [bold]sdlora run[/]: it is not measured "
            "yet, or other images were judged under other settings (name your settings with --config).",
            soft_wrap=True,
        )
        return
    line = Text.assemble(name, " is judged by the checks again: ", _in_brief(record), ": ", record.reason or "")
    console.print(line, soft_wrap=True)


def print_purged(purged: Purged, cleared: ClearedCopies, elsewhere: Sequence[str]) -> None:
    """Print the effects of a takedown, and the remaining work by hand."""
    details = purged.details
    sha256 = details.record.sha256
    console.print(f"[bold]{sha256[:10]}[/] {escape(purged.override.reason)}", soft_wrap=True)
    console.print(
        f"  Its bytes are gone; {cleared.cache_files} files of caches were cleared. Collecting it is refused."
    )
    for kind, paths in (("Pages", cleared.pages), ("Pictures", cleared.pictures)):
        if paths:
            console.print(
                f"  {kind} that no longer show it: " + ", ".join(map(str, paths)), markup=False, soft_wrap=True
            )
    if purged.copies:
        names = ", ".join(copy[:10] for copy in purged.copies)
        console.print(f"  Its copies stay left out ([bold]sdlora images undo[/] gives one back): {names}")
    if not details.appearances:
        console.print("  No snapshot holds it: no version has seen it.")
    else:
        digests = ", ".join(appearance.snapshot.digest[:10] for appearance in details.appearances)
        console.print(f"  Snapshots that hold it: {digests}")
        console.print(f"  Versions that learnt from it: [bold]{_labels(details.trained_versions)}[/]")
        measured_versions = [
            version
            for appearance in details.appearances
            if appearance.split == "held_out"
            for version in appearance.snapshot.versions
        ]
        if measured_versions:
            console.print(f"  Versions that were only measured on it: {_labels(tuple(measured_versions))}")
    _print_remaining_work(details, elsewhere)


def _print_remaining_work(details: ImageDetails, elsewhere: Sequence[str]) -> None:
    if elsewhere:
        console.print("  Remove by hand, in the MLflow that MLFLOW_TRACKING_URI names (its pages may show the image):")
        for line in elsewhere:
            console.print(f"    - {line}", markup=False, soft_wrap=True)
    console.print(
        "  Remove by hand all copies in other places: reports, data pages and releases, backups of this folder"
        + (
            ", and the weights of the versions that learnt from it. [bold]sdlora run[/] trains the next one without it."
            if details.trained_versions
            else "."
        ),
        soft_wrap=True,
    )


def _in_brief(row: ImageRecord) -> str:
    """Return the verdict in a few words: the image's side of the split, or the check that rejected it."""
    if row.verdict == "rejected":
        return f"rejected: {row.rejected_by}"
    if row.verdict is None:
        return "not yet judged"
    return {"train": "accepted, train", "held_out": "accepted, held out"}.get(row.split or "", "accepted")


def _labels(versions: tuple) -> str:
    return ", ".join(version.label for version in versions) or "none"


def _line(label: str, text: str | Text) -> None:
    console.print(Text(f"{label:<11}", style="bold") + (Text(text) if isinstance(text, str) else text), soft_wrap=True)


def _table(title: str, header: list[str] | None, rows: list[list[str]]) -> None:
    if not rows:
        return
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, show_header=header is not None, padding=(0, 2)
    )
    for name in header or [""]:
        table.add_column(name, header_style="dim", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
