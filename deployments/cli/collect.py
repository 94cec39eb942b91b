"""Command `collect`: images into a dataset of the image database."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from deployments.cli.choosing import data_settings, named_style
from deployments.cli.json_output import print_json
from deployments.cli.options import (
    DEFAULT_HOME,
    HomeOption,
    JsonOption,
    StyleFileOption,
    StyleOfDatasetOption,
    data_page,
)
from deployments.cli.stages import Stages
from deployments.cli.stores import dataset_of, dataset_to_fill
from deployments.cli.terminal import console, hint, plain

if TYPE_CHECKING:
    from sdlora.data.collect_report import CollectReport
    from sdlora.data.config import DataConfig
    from sdlora.store.dataset import Dataset


def _summary(report: CollectReport) -> str:
    """Summarise what a source gave, with the first skipped files and the reasons."""
    lines = [f"[bold]{escape(report.source)}[/]: {report.files:,} images, {report.new:,} new"]
    if report.recaptioned:
        lines[0] += f", {report.recaptioned:,} with other captions or masks"
    if report.left:
        lines[0] += f", {report.left:,} left with it"
    if report.skipped_count:
        lines[0] += f", [yellow]{report.skipped_count:,} skipped[/]"
    lines += [f"  [dim]{escape(skipped.path)}: {escape(skipped.reason)}[/]" for skipped in report.skipped]
    if report.skipped_count > len(report.skipped):
        lines.append(f"  [dim]and {report.skipped_count - len(report.skipped):,} more[/]")
    if report.unmatched_count:
        names = ", ".join(map(escape, report.unmatched[:3]))
        lines.append(f"  [dim]named in its metadata but missing: {report.unmatched_count:,} ({names} …)[/]")
    if report.problem_count:
        lines.append(f"  [yellow]{report.problem_count:,} lines or captions not read; no image is lost:[/]")
    lines += [f"  [dim]{escape(problem.path)}: {escape(problem.reason)}[/]" for problem in report.problems]
    if report.problem_count > len(report.problems):
        lines.append(f"  [dim]and {report.problem_count - len(report.problems):,} more[/]")
    return "\n".join(lines)


def collect(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Folders, archives (zip, tar), lists of URLs (txt, csv, parquet), datasets, s3:// and the like.",
        ),
    ],
    home: HomeOption = DEFAULT_HOME,
    style: StyleOfDatasetOption = None,
    config: StyleFileOption = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset", "-d", metavar="NAME", help="The dataset that they join. Needed where there are several."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring images into a dataset and judge each of them. Known images cost nothing.

    A caption comes from metadata.jsonl, metadata.csv or name.txt in the image's folder. Without one, it comes from
    inside the image (XMP, PNG text, EXIF), from its folder (10_name) or from its name. Masks are files next to the
    images: name-masklabel.png or name.mask.png. Stop with Ctrl-C; the same command continues.

    [bold]sdlora collect photos/ scans.zip urls.csv shards/{000..015}.tar s3://bucket/art hf://datasets/owner/name
    "generated://?min_stars=4"[/]
    """
    from sdlora.data.clean import clean
    from sdlora.data.collect import collect as collect_source
    from sdlora.store.image_store import ImageStore

    given = named_style(home, style, config)
    reports: list[CollectReport] = []
    try:
        with (
            ImageStore.open(home) as store,
            Stages() as stages,
            dataset_to_fill(store, dataset or dataset_of(given)) as filled,
        ):
            settings = data_settings(home, given, filled.name)
            for source in sources:
                report = collect_source(filled, source, settings, stages.on_progress, stages.on_metrics)
                reports.append(report)
            cleaned = clean(filled, settings, on_progress=stages.on_progress)
            counts = filled.counts()
            page, problem = data_page(home, filled.name), None
            if cleaned.decided or not page.is_file():  # without new images, the command writes nothing
                problem = _write_page(filled, settings, page)
            option = "" if len(store.dataset_names()) == 1 else f" --dataset {filled.name}"
    finally:  # after the bars, also if a later source failed
        if not as_json:
            for report in reports:
                console.print(_summary(report), soft_wrap=True)
    new = sum(report.new for report in reports)
    shown_page = page.resolve() if page.is_file() else None
    if as_json:
        totals = {**asdict(counts), "total": counts.total}
        result = {"dataset": filled.name, "sources": reports, "new": new, "counts": totals}
        print_json({**result, "data_page": shown_page, "problem": problem})
        return
    console.print(
        f"Dataset {filled.name}: {new} new, {counts.total} in all: {counts.accepted} accepted, "
        f"{counts.rejected} rejected."
    )
    if counts.rejected:
        hint(f"See why: [bold]sdlora images --rejected{option}[/]")
    if problem:
        console.print(plain(problem), style="yellow", soft_wrap=True)
    if shown_page:
        console.print(plain(f"Data page: {page}"), soft_wrap=True)
    _print_triggers(home, filled.name)
    hint(f"Train on them: [bold]{escape(_next_command(home, filled.name, sources))}[/]", soft_wrap=True)


def _print_triggers(home: Path, dataset: str) -> None:
    """Say for each style of the dataset whether the new images start a run."""
    from deployments.cli.styles import trigger_decisions
    from deployments.styles.files import load_styles

    styles = [style for style in load_styles(home) if (dataset_of(style.config) or style.name) == dataset]
    for name, decision in trigger_decisions(styles, home).items():
        console.print(plain(f"{name}: {decision.text}"), soft_wrap=True)


def _next_command(home: Path, dataset: str, sources: list[str]) -> str:
    """Return the command that trains on the images of a dataset, or that makes a style for them."""
    from deployments.styles.files import DEMO_STYLE, load_styles

    if dataset == DEMO_STYLE:
        return "sdlora demo"
    styles = [style.name for style in load_styles(home) if (dataset_of(style.config) or style.name) == dataset]
    if styles:
        return f"sdlora run {styles[0]}" if len(styles) == 1 else "sdlora run --all"
    return shlex.join(["sdlora", "new", dataset, *(word for source in sources for word in ("--images", source))])


def _write_page(dataset: Dataset, settings: DataConfig, page: Path) -> str | None:
    """Write the data page; return the problem with it, or None. Collecting does not fail if its page does."""
    from sdlora.core.errors import SdloraError
    from sdlora.release.data_page import write_data_page

    try:
        written = write_data_page(dataset, settings, page, title=f"Images of {dataset.name}")
    except SdloraError as error:
        return f"All images are collected, but the data page was not written. {error}"
    return f"The data page does not show the changes. {written.trouble}" if written.trouble else None
