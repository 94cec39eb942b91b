"""Output of `sdlora run` and `sdlora demo`: the outcome and the scores."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from deployments.cli.stages import clock
from deployments.cli.terminal import console, plain
from sdlora.core.errors import EvaluationError
from sdlora.records.duel import CONTESTANTS, Duel, load_duel
from sdlora.records.export import ExportRecord
from sdlora.records.metrics import METRICS
from tasks.results import ADOPTED_HINT, HELD_OUT_HINT, Release

SHORT_TABLE = (
    "kid",
    "fid",
    "subject_top10",
    "denoising_psnr",
    "denoising_ssim",
    "reconstruction_psnr",
    "reconstruction_ssim",
    "seconds_per_image",
)
TITLES = {"base": "base model", "champion": "champion", "candidate": "this adapter"}


def release_object(release: Release, seconds: float) -> dict[str, object]:
    """Return the outcome of a run, with the scores of every contestant; null without the record of its duel."""
    try:
        duel = load_duel(release.evaluation)
    except EvaluationError:  # removed by hand
        duel = None
    return {
        "name": release.name,
        "version": release.version,
        "is_new": release.new,
        "is_promoted": release.promoted,
        "is_waiting": release.waits,
        "answer": release.answer,
        "standing": release.standing or None,
        "reasons": release.reasons,
        "scores": duel and {name: duel.scores[name].metrics for name in duel.contestants},
        "seconds": round(seconds, 3),
        "run_digest": release.run.digest,
        "report": release.report,
        "data_page": release.data_page,
        "before_after": release.grid,
        "adapter": release.run.release,
        "exported_to": release.export.file if release.export and not release.export.problem else None,
        "export_problem": release.export.problem if release.export else None,
    }


def print_release(release: Release, seconds: float, *, adopted: bool = False) -> None:
    """Print the outcome of a run, with its scores and files.

    Args:
        adopted: the adapter comes from a file.
    """
    number = f"{release.name} version {release.version}"
    if not release.new and adopted:
        console.print(f"{number} was adopted from this file before. {ADOPTED_HINT}", soft_wrap=True)
    elif not release.new:
        console.print(f"Nothing new to learn: {number} was made from exactly these training images and settings.")
    try:
        console.print(duel_table(load_duel(release.evaluation)))
    except EvaluationError as error:  # removed by hand; the registry still has the outcome
        console.print(plain(error), style="yellow")
    colour = "green" if release.promoted and not release.standing else "yellow"
    console.print(f"[bold]{number}[/] [{colour}]{escape(_verdict(release))}[/]", soft_wrap=True)
    if release.answer:
        console.print(f"The gate's answer: [bold]{release.answer}[/]")
    for reason in release.reasons:
        console.print(plain(f"  - {reason}"), soft_wrap=True)
    for step in release.next_steps:
        console.print(plain(step), style="bold", soft_wrap=True)
    if release.other_held_out:
        console.print(HELD_OUT_HINT, soft_wrap=True)
    for label, value in (
        ("Time", clock(seconds)),
        ("Report", release.report),
        ("Data page", release.data_page),
        ("Before/after", release.grid),
        ("Adapter", release.run.release),
    ):
        console.print(plain(f"{label + ':':<14}{value}"), soft_wrap=True)
    print_export(release.export)


def print_export(export: ExportRecord | None) -> None:
    """Print where the champion was exported to, or why not; nothing without `export.on_promote`."""
    if export and export.problem:
        console.print(plain(f"Not exported: {export.problem}"), style="yellow", soft_wrap=True)
    elif export:
        console.print(plain(f"{'Exported:':<14}version {export.version} to {export.file}"), soft_wrap=True)


def _verdict(release: Release) -> str:
    """Describe the standing of the version in a few words."""
    if release.later:
        return f"judged again: {release.later.verdict}"
    if release.waits:
        return "waits for a person"
    return release.standing or ("passed the gate: it is the champion" if release.promoted else "is not promoted")


def duel_table(duel: Duel) -> Table:
    """Build a table of all contestants' scores, with 95 % intervals where they were measured."""
    present = [name for name in CONTESTANTS if name in duel.scores]
    title = f"{len(duel.samples)} held-out images, the same prompts and seeds for all; [95 % interval]"
    table = Table(title=title, title_justify="left", title_style="dim")
    table.add_column("metric")
    for name in present:
        table.add_column(TITLES[name], justify="right", style="bold" if name == "candidate" else "")
    for key in SHORT_TABLE:
        metric = METRICS[key]
        cells = [escape(metric.format(duel.scores[name].metrics.get(key))) for name in present]
        table.add_row(f"{metric.label} {metric.arrow}", *cells)
    return table
