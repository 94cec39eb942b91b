"""Signs of life of a training's ticket, and the stop that a person or a lost slot asks for."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal
from prefect.states import Cancelling

from sdlora.store.training_queue import HEARTBEAT_SECONDS, SlotLostError
from tasks.run_log import run_log
from tasks.waiting.page_cancels import IN_PAGE

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

    from sdlora.store.tickets import Ticket
    from sdlora.store.training_queue import TrainingQueue

_WORKER_SECONDS = 30.0
"""Time that a worker has to stop a run that asks for it; afterwards the run stops itself."""


class Heartbeat:
    """Thread that shows every few seconds that the holder of a slot lives.

    Attributes:
        cancelled_by: person who asked to stop the run.
        lost: error of a slot that was given away.
    """

    def __init__(self, queue: TrainingQueue, ticket: Ticket, interval_seconds: float = HEARTBEAT_SECONDS) -> None:
        self.cancelled_by: str | None = None
        self.lost: SlotLostError | None = None
        self._queue, self._ticket, self._interval_seconds = queue, ticket, interval_seconds
        self._log, self._run = run_log(), flow_run()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(self._interval_seconds):
            try:
                self.cancelled_by = self._queue.beat(self._ticket).cancelled_by
            except SlotLostError as error:
                self.lost = error
            except Exception:  # noqa: BLE001  # the database is away: its outage takes no slot, see TrainingQueue
                self._log.warning("No heartbeat: the image database cannot be reached.", exc_info=True)
            if self.lost:  # no person asked for it, so the page does not show it as cancelled
                os.kill(os.getpid(), signal.SIGINT)
                return
            if self.cancelled_by:
                stop_run(self._run, self._ended)
                return


def flow_run() -> FlowRun | None:
    """Return the running flow run; None without one, as in a notebook."""
    context = FlowRunContext.get()
    return context.flow_run if context else None


def stop_run(run: FlowRun | None, ended: threading.Event) -> None:
    """Stop this process's run, so that it saves a checkpoint.

    A worker stops its run as the page's Cancel does. The run is then "Cancelled" in the page. Any other run gets the
    signal of Ctrl-C.

    Args:
        ended: is set when the run has stopped.
    """
    if run is not None and run.deployment_id is not None:
        with suppress(Exception):  # no server: the signal works without one
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(run.id, Cancelling())
            if ended.wait(_WORKER_SECONDS):
                return
    if not ended.is_set():
        os.kill(os.getpid(), signal.SIGINT)


def reason_of_cancel(stop: BaseException) -> str | None:
    """Return by what a person cancelled the run that stops; None if its process is stopped, so the next run continues.

    Args:
        stop: KeyboardInterrupt or Prefect's TerminationSignal.
    """
    run = flow_run()
    if isinstance(stop, TerminationSignal):
        return IN_PAGE if run is not None and is_cancelled_in_page(run.id) else None
    return "Cancelled with Ctrl-C." if run is None or run.deployment_id is None else None


def is_cancelled_in_page(run_id: UUID) -> bool:
    """Return True if a person cancelled the run in Prefect's page; False if the server cannot be asked."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(run_id).state
    except Exception:  # noqa: BLE001  # the process is being stopped: no answer is an answer
        return False
    return state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED)
