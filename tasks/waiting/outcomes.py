"""Outcomes of runs that hold no ticket: skipped, or failed before the queue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import select

from sdlora.core.errors import StorageError
from sdlora.processes.identity import ProcessIdentity
from sdlora.store.image_store import ImageStore
from sdlora.store.tables.base import utc_now
from sdlora.store.tables.tickets import TicketTable
from sdlora.store.tickets import Request, Work, new_row, record_skipped
from sdlora.store.training_queue import AlreadyQueuedError
from tasks.run_log import log_text
from tasks.waiting.asked_by import asked_by
from tasks.waiting.heartbeat import flow_run

_REASON_LENGTH = 500


def request_of(name: str, what: Work, run_digest: str | None = None, settings_digest: str | None = None) -> Request:
    """Describe the running flow run for the queue."""
    run = flow_run()
    return Request(
        name,
        what,
        asked_by(),
        run_digest=run_digest,
        flow_run_id=str(run.id) if run else None,
        settings_digest=settings_digest,
    )


def record_skipped_run(name: str, run_digest: str | None, reason: str, home: Path) -> None:
    """Record a style's run that ended without a ticket, because it had nothing to do or was not to do it.

    Args:
        run_digest: None if the run ended before it had one.
    """
    with ImageStore.open(home) as store, store.write() as session:
        record_skipped(session, request_of(name, "retrain", run_digest), reason)


@contextmanager
def failure_recorded(name: str, home: Path) -> Iterator[None]:
    """Record a failure before the queue as the outcome of the style's run; a ticket records a later one itself."""
    try:
        yield
    except AlreadyQueuedError:  # the other run has the outcome
        raise
    except Exception as error:
        with suppress(StorageError):  # the failure itself may be one of the database
            _record_failure(request_of(name, "retrain"), reason_of(error), home)
        raise


def reason_of(error: BaseException) -> str:
    """Return an error as a reason of one line."""
    return log_text(error if str(error) else type(error).__name__, _REASON_LENGTH)


def _record_failure(request: Request, reason: str, home: Path) -> None:
    with ImageStore.open(home) as store, store.write() as session:
        of_this_run = select(TicketTable.id).where(TicketTable.flow_run_id == request.flow_run_id)
        if request.flow_run_id and session.scalars(of_this_run.limit(1)).first() is not None:
            return
        row = new_row(request, ProcessIdentity.of_this_process(), token="")
        row.state, row.reason, row.ended_at = "failed", reason, utc_now()
        session.add(row)
