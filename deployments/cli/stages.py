"""Progress in the terminal: one bar per stage with the time left."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.text import Text

from deployments.cli.terminal import error_console, verbosity
from sdlora.core.printable import escape_controls
from sdlora.core.progress import Listener

PLAIN_INTERVAL_SECONDS = 20.0
MIN_BF16_SPEEDUP = 1.2
"""Equal to the library's threshold; its module would import PyTorch."""


class Stages(Listener):
    """Listener that shows the library's progress as bars; without a terminal, as a line every 20 s.

    Warnings of the library (skipped images, a damaged checkpoint) are shown, too; other log lines only with -v.
    With -q, warnings alone are shown.
    """

    def __init__(self, output: Console = error_console) -> None:
        self.console = output
        self._quiet = verbosity.quiet
        self._live = output.is_terminal and not self._quiet
        self._bars: dict[str, TaskID] = {}
        self._printed_at: dict[str, float] = {}
        self._started: dict[str, tuple[float, int]] = {}
        self._warm: dict[str, tuple[float, int]] = {}
        self._validation_text = ""
        self._log_lines = _LogLines(self, logging.INFO if verbosity.verbose else logging.WARNING)
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            _TimeColumn(),
            TextColumn("[dim]{task.fields[note]}[/]"),
            console=output,
        )

    def __enter__(self) -> Self:
        if self._live:
            self._progress.start()
        self._log_lines.attach()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log_lines.detach()
        if self._live:
            self._progress.stop()

    def on_progress(self, stage: str, done: int, total: int) -> None:
        if self._live:
            if stage not in self._bars:
                self._bars[stage] = self._progress.add_task(escape_controls(stage), total=total or None, note="")
            self._progress.update(self._bars[stage], completed=done, total=total or None)
        elif not self._quiet:
            self._print_progress(stage, done, total)

    def on_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Show the newest loss after the moving bar, with the last scores on held-out images."""
        if "bf16_speedup" in values:
            self.note(_processor_note(values["bf16_speedup"]))
        if "validation_loss" in values:
            self._validation_text = f", validation loss {values['validation_loss']:.4f}"
            if "validation_kid" in values:
                self._validation_text += f", KID {values['validation_kid']:.3f}"
            if not self._live:
                self.note(f"step {step}{self._validation_text}")
        if not (self._live and self._bars):
            return
        newest = next(reversed(self._bars.values()))
        if "loss" in values:
            self._progress.update(newest, note=f"loss {values['loss']:.3f}{self._validation_text}")
        elif values.get("bytes"):
            self._progress.update(newest, note=f"{values['bytes'] / 1e6:,.1f} MB read")

    def on_note(self, text: str) -> None:
        self.note(escape(text))

    def note(self, text: str) -> None:
        """Print a line of markup between the bars, unless -q is given."""
        if not self._quiet:
            self.print_line(text)

    def print_line(self, text: str) -> None:
        """Print a line of markup between the bars."""
        self.console.print(text, soft_wrap=True)

    def _print_progress(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        # A continued stage does not begin at zero.
        started_at, done_at_start = self._started.setdefault(stage, (now, done))
        # The first report includes what is done once, such as choosing kernels, and says little about the rest.
        warm_at, done_when_warm = self._warm.setdefault(stage, (now, done)) if done > done_at_start else (now, done)
        if (done < total or not total) and now - self._printed_at.get(stage, started_at) < PLAIN_INTERVAL_SECONDS:
            self._printed_at.setdefault(stage, started_at)
            return
        if done == total and self._printed_at.get(stage) == float("inf"):
            return
        if not total:  # the total is still unknown
            self._printed_at[stage] = now
            self.console.print(f"{escape(stage)}: {done}, {clock(now - started_at)}")
            return
        self._printed_at[stage] = float("inf") if done == total else now
        if done == done_when_warm:
            warm_at, done_when_warm = started_at, done_at_start
        seconds_left = (now - warm_at) / max(1, done - done_when_warm) * (total - done)
        time_text = f"{clock(now - started_at)}" if done == total else f"{clock(seconds_left)} left"
        self.console.print(f"{escape(stage)}: {done}/{total}, {time_text}")


def _processor_note(bf16_speedup: float) -> str:
    if bf16_speedup > MIN_BF16_SPEEDUP:
        return f"This processor computes in bf16 {bf16_speedup:.1f} times as fast as in fp32, so training uses bf16."
    return "This processor gains nothing from bf16, so training uses fp32 and takes about twice as long as with bf16."


class _LogLines(logging.Handler):
    """Log handler that prints the library's warnings between the bars; at level INFO, also the tasks' lines."""

    def __init__(self, stages: Stages, level: int) -> None:
        super().__init__(level)
        self.stages = stages
        # Tasks log through their flow's logger. "prefect.task_runs" holds only Prefect's line of every finished task.
        names = ("sdlora",) if level > logging.INFO else ("sdlora", "tasks", "prefect.flow_runs")
        self._loggers = [logging.getLogger(name) for name in names]
        self._earlier_levels: list[int] = []

    def attach(self) -> None:
        self._earlier_levels = [logger.level for logger in self._loggers]
        for logger in self._loggers:
            logger.addHandler(self)
            if self.level < logger.getEffectiveLevel():
                logger.setLevel(self.level)

    def detach(self) -> None:
        for logger, level in zip(self._loggers, self._earlier_levels, strict=True):
            logger.removeHandler(self)
            logger.setLevel(level)

    def emit(self, record: logging.LogRecord) -> None:
        text = escape(record.getMessage())
        line = f"[yellow]Note:[/] {text}" if record.levelno >= logging.WARNING else f"[dim]{text}[/]"
        self.stages.print_line(line)


class _TimeColumn(ProgressColumn):
    """Remaining time while a stage runs, then the time that the stage took."""

    def render(self, task: Task) -> Text:
        if task.finished:
            return Text(clock(task.finished_time or 0), style="dim")
        if task.time_remaining is None:
            return Text("-:--", style="cyan")
        return Text(f"{clock(task.time_remaining)} left", style="cyan")


def clock(seconds: float) -> str:
    """Format seconds as minutes and seconds: 75 gives "1:15"."""
    minutes, remainder = divmod(round(seconds), 60)
    return f"{minutes}:{remainder:02d}"
