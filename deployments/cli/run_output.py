"""Output of `sdlora run` and `sdlora demo`: the outcome, the scores, the settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from deployments.cli.terminal import clock, console
from sdlora.config import Setting
from sdlora.core.errors import EvaluationError
from sdlora.records.duel import CONTESTANTS, Duel, load_duel
from sdlora.records.metrics import METRICS

if TYPE_CHECKING:
    from tasks.results import Release

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


def print_release(release: Release, seconds: float) -> None:
    number = f"{release.name} version {release.version}"
    if not release.new:
        console.print(f"Nothing new: {number} was made from exactly these images and settings.")
    try:
        console.print(duel_table(load_duel(release.run.evaluation)))
    except EvaluationError as error:  # removed by hand; the registry still has the outcome
        console.print(f"[yellow]{error}[/]")
    verdict = "[green]passed the gate: it is the champion[/]" if release.promoted else "[yellow]is not promoted[/]"
    console.print(f"[bold]{number}[/] {verdict}")
    for reason in release.reasons:
        console.print(f"  - {reason}", markup=False)
    for label, value in (
        ("Time", clock(seconds)),
        ("Report", release.report),
        ("Data page", release.data_page),
        ("Before/after", release.grid),
        ("Adapter", release.run.release),
    ):
        console.print(f"{label + ':':<14}{value}", markup=False, soft_wrap=True)


def settings_table(settings: Sequence[Setting]) -> Table:
    """Build a table of every setting with its value and origin."""
    table = Table(title="value and origin of every setting", title_justify="left", title_style="dim")
    for column in ("setting", "value", "from"):
        table.add_column(column, overflow="fold")
    for setting in settings:
        is_given = setting.origin in ("file", "flag")
        cells = (setting.name, _value_text(setting.value), setting.origin)
        table.add_row(*map(escape, cells), style="bold" if is_given else "")
    return table


def _value_text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


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
