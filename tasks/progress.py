"""Progress of a stage: to the run's page in Prefect, and to a listener in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext

from sdlora.core.progress import Listener, OnProgress
from tasks.background import BackgroundSender
from tasks.run_log import TrainingLog

if TYPE_CHECKING:
    from tasks.tracking import TrackedRun

ARTIFACT_INTERVAL_SECONDS = 3.0
_LAST_SECONDS = 1.0


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Pass the progress and metrics of this process's tasks to `listener` for the length of the block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def task_progress() -> OnProgress:
    """Return a callback for the library that updates the progress bar of the running flow."""
    listener = _listener.get()
    page = _progress_page()

    def report(stage: str, done: int, total: int) -> None:
        if listener:
            listener.on_progress(stage, done, total)
        if page:
            page.report(stage, done, total)

    return report


def report_metrics(step: int, values: Mapping[str, float]) -> None:
    """Pass training metrics to the listener of this process, if there is one."""
    listener = _listener.get()
    if listener:
        listener.on_metrics(step, values)


def report_note(text: str) -> None:
    """Pass a line about the run to the listener of this process, if there is one."""
    listener = _listener.get()
    if listener:
        listener.on_note(text)


class TrainingListener(Listener):
    """Listener that passes a training's reports to MLflow, the run's page and log, and this process's listener."""

    def __init__(self, record: TrackedRun, steps: int) -> None:
        self.record, self.log, self._progress = record, TrainingLog(steps), task_progress()

    def on_progress(self, stage: str, done: int, total: int) -> None:
        self._progress(stage, done, total)

    def on_metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.record.log_metrics(step, values)
        report_metrics(step, values)
        self.log.report(step, values)


class _ProgressPage:
    """Progress artifact, updated every 3 s in the background; only the newest state is sent."""

    def __init__(self) -> None:
        self.artifact: UUID | None = None
        self.stage, self.reported_at = "", 0.0
        self._sender = BackgroundSender("progress")

    def report(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        is_recent = stage == self.stage and now - self.reported_at < ARTIFACT_INTERVAL_SECONDS
        if total <= 0 or (is_recent and done < total):
            return
        self.stage, self.reported_at = stage, now
        percent, description = 100 * done / total, f"{stage}: {done} of {total}"
        self._sender.submit(lambda: self._send(percent, description), key="progress")
        if done >= total:
            self._sender.wait(_LAST_SECONDS)  # the end of a stage is seen before the run ends

    def _send(self, percent: float, description: str) -> None:
        if self.artifact:
            update_progress_artifact(self.artifact, percent, description)
        else:
            created = create_progress_artifact(percent, key="progress", description=description)
            self.artifact = created  # type: ignore[assignment]  # the signature also covers async callers


_pages: dict[UUID, _ProgressPage] = {}
"""One bar per flow run for all its stages: a bar per stage would hide the pages among the run's artifacts."""


def _progress_page() -> _ProgressPage | None:
    context = TaskRunContext.get()
    if context is None:
        return None
    return _pages.setdefault(context.task_run.flow_run_id or context.task_run.id, _ProgressPage())
