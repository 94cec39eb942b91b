"""Queue of the runs for the devices: a run joins it once it knows that it has to train, and waits for its turn."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import TerminationSignal
from prefect.states import Running

from sdlora.config import PipelineConfig
from sdlora.core.errors import StorageError
from sdlora.core.schedule import ScheduleConfig
from sdlora.processes.slots import AUTO, DEVICES, slots_of
from sdlora.store.image_store import ImageStore
from sdlora.store.tickets import Outcome, Request, Ticket, Work
from sdlora.store.training_queue import AlreadyQueuedError, TicketCancelledError, TrainingQueue
from tasks.progress import report_note
from tasks.results import RunRef
from tasks.run_log import run_log
from tasks.settings_digest import settings_digest
from tasks.waiting.asked_by import in_the_name_of
from tasks.waiting.daily_limit import DailyLimitError, daily_limit_reached
from tasks.waiting.heartbeat import Heartbeat, flow_run, reason_of_cancel, stop_run
from tasks.waiting.outcomes import reason_of, record_skipped_run, request_of
from tasks.waiting.skipping import OutsideHoursError, outside_window
from tasks.waiting.unattended import tell_if_given_up

_POLL_SECONDS = 0.5
_OUTAGE_SECONDS = 600.0  # the longest time without a database that a waiting or finished run bears
_Ending = tuple[Outcome, str | None]


@task(name="join the queue", persist_result=False)
def join_queue(name: str, what: Work, home: Path) -> Ticket:
    """Take a ticket of the queue.

    Raises:
        AlreadyQueuedError: such a work of this name waits or trains already.
        ConfigError: SDLORA_DEVICES names no device of this machine.
    """
    return _ask(request_of(name, what), home)


@task(name="join the queue", persist_result=False)
def join_queue_for_run(config: PipelineConfig, run: RunRef, home: Path) -> Ticket | str:
    """Take a ticket of the queue for a run of the loop.

    Args:
        config: settings as typed.

    Returns:
        The ticket, or the reason why there is none: the clock or a trigger started the run, and the style has trained
        long enough today, or a run of the style waits or trains already.

    Raises:
        AlreadyQueuedError: a person asked for the run, and a run of the style waits or trains already.
        ConfigError: SDLORA_DEVICES names no device of this machine.
    """
    name = config.name
    request = request_of(name, "retrain", run.digest, settings_digest(config))
    if request.asked_by == "person":
        return _ask(request, home)
    if limit := daily_limit_reached(config.schedule, name, home):
        record_skipped_run(name, run.digest, limit, home)
        return limit
    try:
        return _ask(request, home)
    except AlreadyQueuedError as error:
        record_skipped_run(name, run.digest, error.ticket.since, home)
        return error.ticket.since


@contextmanager
def training_slot(ticket: Ticket, home: Path, schedule: ScheduleConfig | None = None) -> Iterator[None]:
    """Wait until it is the ticket's turn, and hold a slot with its device for the length of the block.

    The ticket records how the block ended. In the block, a run that a person moved forward counts as the person's.

    Args:
        schedule: hours of a run that no person asked for; they may have ended while it waited.

    Raises:
        OutsideHoursError: the turn came outside the hours of `schedule`.
        TicketCancelledError: the ticket was cancelled while it waited.
        SlotLostError: the slot was given to another run.
    """
    from sdlora.core.devices import on_device

    with ImageStore.open(home) as store:
        queue = TrainingQueue(store.database, _slots())
        ending: _Ending = ("lost", "The run was stopped.")
        heartbeat: Heartbeat | None = None
        try:
            slot = _wait(queue, ticket)
            with in_the_name_of(slot.request.asked_by):
                if schedule and (reason := outside_window(schedule)):
                    raise OutsideHoursError(reason)
                with Heartbeat(queue, slot) as heartbeat, on_device(slot.device or AUTO):
                    yield
            ending = ("done", None)
        except (KeyboardInterrupt, TerminationSignal) as error:
            ending = _ending_of(error, heartbeat)
            if heartbeat and heartbeat.lost:
                raise heartbeat.lost from error
            raise
        except (DailyLimitError, OutsideHoursError) as error:
            ending = ("skipped", reason_of(error))
            raise
        except Exception as error:
            ending = ("failed", reason_of(error))
            raise
        finally:
            _end(queue, ticket, ending, home)
            _tell_given_up(ticket, ending, home)


def _tell_given_up(ticket: Ticket, ending: _Ending, home: Path) -> None:
    if ending[0] == "failed":
        tell_if_given_up(ticket.request, home)


def _slots() -> tuple[str, ...]:
    return slots_of(os.environ.get(DEVICES))


def _ask(request: Request, home: Path) -> Ticket:
    from sdlora.core.devices import check_device

    for slot in (slots := _slots()):
        check_device(slot)
    with ImageStore.open(home) as store:
        queue = TrainingQueue(store.database, slots)
        _write_endings(queue, home)
        return queue.ask(request)


def _wait(queue: TrainingQueue, ticket: Ticket) -> Ticket:
    """Wait for a slot; the place is shown in the log, in the terminal and as the state of the flow run."""
    shown, reached_at = "", time.monotonic()
    while True:
        try:
            taken = queue.take(ticket)
            reached_at = time.monotonic()
        except TicketCancelledError:
            run = flow_run()
            if run is not None and run.deployment_id is not None:
                stop_run(run, threading.Event())  # the page shows it as cancelled, not as failed
            raise
        except StorageError as error:
            if time.monotonic() - reached_at > _OUTAGE_SECONDS:
                raise
            run_log().warning("Still waiting: %s", error)
            time.sleep(_POLL_SECONDS * 10)
            continue
        if isinstance(taken, Ticket):
            break
        if taken.text != shown:
            shown = taken.text
            run_log().info("Waiting, %s", shown)
            report_note(f"Waiting, {shown}")
            _show_state(State(type=StateType.RUNNING, name="Waiting", message=shown))
        time.sleep(_POLL_SECONDS)
    if shown:
        _show_state(Running())
    if taken.device != AUTO:
        run_log().info("Training on %s", taken.device)
    return taken


def _show_state(state: State[None]) -> None:
    run = flow_run()
    if run is None:
        return
    try:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, state)  # not forced: a run that is being cancelled stays so
    except Exception:  # any error of the client: the page's state is not worth a failed run
        log = run_log()
        log.warning("Prefect's page does not show the place in the queue.", exc_info=True)


def _ending_of(stop: BaseException, heartbeat: Heartbeat | None) -> _Ending:
    """Tell a run that a person cancelled from one whose process is stopped, which the next run continues."""
    if heartbeat and heartbeat.cancelled_by:
        return "cancelled", f"Cancelled by {heartbeat.cancelled_by}."
    if reason := reason_of_cancel(stop):
        return "cancelled", reason
    return "lost", "The process was stopped."


_unwritten: dict[tuple[Path, int], tuple[Ticket, _Ending]] = {}
"""Endings that the database did not take, by state folder and ticket. This process lives, so nobody else ends them."""


def _end(queue: TrainingQueue, ticket: Ticket, ending: _Ending, home: Path) -> None:
    """Free the slot; a database that is away is awaited only by a run that ended well."""
    deadline = time.monotonic() + (_OUTAGE_SECONDS if ending[0] == "done" else 0)
    while True:
        try:
            queue.end(ticket, *ending)
        except StorageError as error:
            if time.monotonic() > deadline:
                run_log().warning("The slot is free only when this process ends or starts another run: %s", error)
                _unwritten[home, ticket.id] = (ticket, ending)
                return
            time.sleep(_POLL_SECONDS * 10)
        else:
            return


def _write_endings(queue: TrainingQueue, home: Path) -> None:
    """End the tickets of earlier runs of this process, or the next run would wait for them for ever."""
    for key in [key for key in _unwritten if key[0] == home]:
        ticket, ending = _unwritten[key]
        queue.end(ticket, *ending)
        del _unwritten[key]
