"""Where a stage's progress goes: to the run page in Prefect, and to whoever listens in this process."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext

from sdlora.progress import OnMetrics, OnProgress

ARTIFACT_INTERVAL_SECONDS = 3.0


@dataclass(frozen=True)
class Listener:
    """Whoever wants to hear of the work while it is done."""

    on_progress: OnProgress
    on_metrics: OnMetrics


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(on_progress: OnProgress, on_metrics: OnMetrics) -> Iterator[None]:
    """Hear the progress and the metrics of every task that runs in this process within the block."""
    token = _listener.set(Listener(on_progress, on_metrics))
    try:
        yield
    finally:
        _listener.reset(token)


def task_progress() -> OnProgress:
    """A callback for the library that keeps one progress bar per stage on the page of the running task."""
    listener = _listener.get()
    page = _ProgressPage() if TaskRunContext.get() else None

    def report(stage: str, done: int, total: int) -> None:
        if listener:
            listener.on_progress(stage, done, total)
        if page:
            page.report(stage, done, total)

    return report


def report_metrics(step: int, values: Mapping[str, float]) -> None:
    """Pass training metrics on to whoever listens in this process."""
    listener = _listener.get()
    if listener:
        listener.on_metrics(step, values)


class _ProgressPage:
    """Progress artifacts, updated every few seconds; work goes on if the server cannot be reached."""

    def __init__(self) -> None:
        self.artifacts: dict[str, UUID] = {}
        self.reported_at: dict[str, float] = {}
        self.reachable = True

    def report(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        recent = now - self.reported_at.get(stage, -ARTIFACT_INTERVAL_SECONDS) < ARTIFACT_INTERVAL_SECONDS
        if not self.reachable or total <= 0 or (recent and done < total):
            return
        self.reported_at[stage] = now
        percent, description = 100 * done / total, f"{stage}: {done} of {total}"
        try:
            if stage in self.artifacts:
                update_progress_artifact(self.artifacts[stage], percent, description)
            else:
                created = create_progress_artifact(percent, key=_artifact_key(stage), description=description)
                self.artifacts[stage] = created  # type: ignore[assignment]  # the signature also covers async callers
        except Exception:  # whatever the client raises: a picture of the work is not the work
            self.reachable = False
            logging.getLogger(__name__).warning("progress is no longer shown: Prefect cannot be reached", exc_info=True)


def _artifact_key(stage: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in stage.lower()).split())
