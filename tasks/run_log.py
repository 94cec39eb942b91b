"""Log on the page of a running flow, and the rate of training's lines in it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from prefect import get_run_logger
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import MissingContextError
from prefect.logging.loggers import flow_run_logger

from sdlora.core.printable import escape_controls

Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]

LINE_LENGTH = 200
_LINE_INTERVAL_SECONDS = 30.0
_MIN_INTERVAL_SECONDS = 1.0
"""A resumed training reports its whole old curve in a moment: points closer than this are not new."""


def run_log() -> Logger:
    """Return the logger of the running flow or task; without one, such as in a notebook, this module's logger.

    Lines of tasks go to the flow's logger, with the task's id. The variable
    PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL=WARNING therefore silences only Prefect's own line of every task
    ("Finished in state Completed()").
    """
    flow, task = FlowRunContext.get(), TaskRunContext.get()
    if flow and flow.flow_run:
        return flow_run_logger(flow.flow_run, flow.flow, task_run_id=str(task.task_run.id) if task else None)
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger(__name__)


def log_text(text: object, length: int = LINE_LENGTH) -> str:
    r"""Put foreign text on one line; line breaks, control and direction marks become `\n`, `\x1b`, `\u202e`."""
    line = escape_controls(str(text), keep="")
    return line if len(line) <= length else f"{line[: length - 3]}..."


class TrainingLog:
    """Log lines with step, loss and time left: every 30 s, every tenth of the steps, and for the last step."""

    def __init__(self, steps: int, stage: str = "") -> None:
        self.log, self.steps, self.stage = run_log(), steps, f"{stage}: " if stage else ""
        self._logged_at: float | None = None
        self._logged_step, self._reached = 0, -1

    def report(self, step: int, values: Mapping[str, float]) -> None:
        """Take a point of the curve, and log a line if one is due."""
        if "validation_loss" in values and step > self._reached:
            self.log.info(
                "%sstep %d of %d, validation loss %.4g", self.stage, step, self.steps, values["validation_loss"]
            )
        now, is_last = time.monotonic(), step >= self.steps
        if self._logged_at is None:  # the time starts here: encoding came before
            self._logged_at, self._logged_step = now, 0 if is_last else step
        if "loss" not in values or step <= self._logged_step:
            return
        self._reached = max(self._reached, step)
        elapsed = now - self._logged_at
        is_due = elapsed >= _LINE_INTERVAL_SECONDS or self._tenth(step) > self._tenth(self._logged_step)
        if not is_last and (not is_due or elapsed < _MIN_INTERVAL_SECONDS):
            return
        seconds_left = elapsed / (step - self._logged_step) * (self.steps - step)
        time_left = "" if is_last else f", {_clock(seconds_left)} left"
        self.log.info("%sstep %d of %d, loss %.4g%s", self.stage, step, self.steps, values["loss"], time_left)
        self._logged_at, self._logged_step = now, step

    def _tenth(self, step: int) -> int:
        return 10 * step // self.steps


def _clock(seconds: float) -> str:
    minutes, remainder = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{remainder:02d}" if hours else f"{minutes}:{remainder:02d}"
