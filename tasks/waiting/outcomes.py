"""Outcomes of runs that hold no ticket: skipped, or failed or cancelled before the queue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prefect.exceptions import TerminationSignal
from sqlalchemy import select
from sqlalchemy.orm import Session

from sdlora.config import PipelineConfig
from sdlora.core.errors import StorageError
from sdlora.processes.identity import ProcessIdentity
from sdlora.store.image_store import ImageStore
from sdlora.store.inputs import dataset_digest
from sdlora.store.style_records import record_left_alone
from sdlora.store.tables.base import utc_now
from sdlora.store.tables.tickets import TicketTable
from sdlora.store.tickets import Outcome, Request, Work, new_row, record_skipped
from sdlora.store.training_queue import AlreadyQueuedError
from tasks.run_log import log_text
from tasks.settings_digest import settings_digest
from tasks.waiting.asked_by import asked_by
from tasks.waiting.heartbeat import flow_run, reason_of_cancel

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
def ending_recorded(config: PipelineConfig, home: Path) -> Iterator[None]:
    """Record a failure or a cancel before the queue as the outcome of the style's run; a ticket records later ones.

    Args:
        config: settings as typed.
    """
    try:
        yield
    except AlreadyQueuedError:  # the other run has the outcome
        raise
    except (KeyboardInterrupt, TerminationSignal) as stop:
        if reason := reason_of_cancel(stop):
            with suppress(StorageError):
                _record_cancel(config, reason, home)
        raise
    except Exception as error:
        request = request_of(config.name, "retrain")
        # The failure itself may be one of the database.
        with suppress(StorageError), ImageStore.open(home) as store, store.write() as session:
            _record_ending(session, request, "failed", reason_of(error))
        raise


def reason_of(error: BaseException) -> str:
    """Return an error as a reason of one line."""
    return log_text(error if str(error) else type(error).__name__, _REASON_LENGTH)


def _record_cancel(config: PipelineConfig, reason: str, home: Path) -> None:
    """Record that a person cancelled a run that has no digest yet, and the images and settings that it left alone."""
    settings = settings_digest(config)
    request = request_of(config.name, "retrain", settings_digest=settings)
    with ImageStore.open(home) as store, store.write() as session:
        if _record_ending(session, request, "cancelled", reason):
            inputs = dataset_digest(session, config.data.dataset or config.name)
            record_left_alone(session, config.name, inputs, settings)


def _record_ending(session: Session, request: Request, outcome: Outcome, reason: str) -> bool:
    """Add a row about a run without a ticket; return False if the run has one."""
    of_this_run = select(TicketTable.id).where(TicketTable.flow_run_id == request.flow_run_id)
    if request.flow_run_id and session.scalars(of_this_run.limit(1)).first() is not None:
        return False
    row = new_row(request, ProcessIdentity.of_this_process(), token="")
    row.state, row.reason, row.ended_at = outcome, reason, utc_now()
    session.add(row)
    return True
