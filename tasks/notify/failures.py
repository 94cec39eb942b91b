"""Messages about runs that failed or were killed, once for each.

Prefect calls the hooks of a flow in the run's process if the flow raises, and in the worker if the process dies. No
hook runs if the worker died too, the flow could not be loaded, or the run was killed in a terminal. `sdlora up` finds
such runs by their state, which `tasks/alive.py` and the worker correct.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import StateType
from prefect.states import Crashed
from pydantic import ValidationError

from sdlora.core.config_base import FrozenConfig
from sdlora.core.errors import SdloraError
from sdlora.release.messages import Message, MessageLink, failure_message
from sdlora.store.training_queue import AlreadyQueuedError, TicketCancelledError
from tasks.home import state_folder
from tasks.notify.outbox import deliver, deliver_in_background
from tasks.notify.recipients import FOLDER
from tasks.notify.tell import announce, prefect_pages
from tasks.private import private_file, private_folder
from tasks.run_log import run_log

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State

KILLED = "The process of the run ended without a report."
_EXIT = re.compile(r"exited with .*status code:? (-?\d+)")
_STOPPED_BY_SIGNAL = re.compile(r"aborted by an? (interrupt|termination) signal")
_STOPPED_CODES = {-2, -15, 130, 143}
"""Exit codes of runs that a person or the end of `sdlora up` stopped: Ctrl-C, SIGTERM."""
TOLD_FILE = "told-runs.json"
_REMEMBERED = timedelta(days=7)


def tell_failure(flow: Any, flow_run: FlowRun, state: State) -> None:
    """Tell that a run failed or crashed; a hook for `@flow(on_failure=[...], on_crashed=[...])`."""
    _tell_once(state_folder(_home_of(flow_run)), [(flow_run, state)])


def tell_killed(runs: Sequence[FlowRun], home: Path) -> None:
    """Tell runs that were marked as crashed, because their process was found to be gone.

    Nothing is waited for: this is the first act of another run, or of `sdlora up`.
    """
    if runs:
        _tell_once(home, [(run, Crashed(message=KILLED)) for run in runs], deliver_in_background)


def tell_unheard_failures(home: Path) -> None:
    """Tell failed and killed runs of the last days that were not told. The Prefect server serves only this folder."""
    with _told_runs(home) as told:
        since = max(told.since, datetime.now(UTC) - _REMEMBERED)
    states = {"type": {"any_": [StateType.FAILED, StateType.CRASHED]}}
    runs = FlowRunFilter.model_validate({"state": states, "end_time": {"after_": since}})
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=runs)
    _tell_once(home, [(run, run.state) for run in found if run.state is not None])


class _ToldRuns(FrozenConfig):
    """Times of telling by the ids of runs. Failures from before `since` are no news."""

    since: datetime
    runs: dict[str, datetime]

    def is_news(self, run: FlowRun, state: State) -> bool:
        told_at = self.runs.get(str(run.id))
        return state.timestamp > self.since and (told_at is None or told_at < state.timestamp)


def _tell_once(home: Path, failures: Sequence[tuple[FlowRun, State]], send: Callable[[Path], object] = deliver) -> None:
    """Tell the failures that were not told. A failure of its own is a warning, which must not hide the run's."""
    try:
        with _told_runs(home) as told:
            new = [(run, state) for run, state in failures if told.is_news(run, state)]
            told.runs.update({str(run.id): datetime.now(UTC) for run, _ in new})
            # Inside the block: a run is remembered only after its message is in the outbox.
            messages = [message for run, state in new if (message := _message(run, state))]
            announce(home, *messages)
        if messages:
            send(home)
    except Exception:  # whatever a library raises
        log = run_log()
        log.warning("A failure could not be told", exc_info=True)


@contextmanager
def _told_runs(home: Path) -> Iterator[_ToldRuns]:
    """Yield the runs that were told, for one process at a time; changes are kept."""
    now = datetime.now(UTC)
    with os.fdopen(private_file(private_folder(home / FOLDER) / TOLD_FILE), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            told = _ToldRuns.model_validate_json(file.read())
        except ValidationError:  # a new file, or one that was cut off
            # The run that fails just now is news.
            told = _ToldRuns(since=now - timedelta(minutes=1), runs={})
        yield told
        recent = {run: when for run, when in told.runs.items() if when > now - 2 * _REMEMBERED}
        file.seek(0)
        file.truncate()
        file.write(told.model_copy(update={"runs": recent}).model_dump_json())


def _message(flow_run: FlowRun, state: State) -> Message | None:
    """Return the message about a failed or killed run; None if it was stopped on purpose."""
    if isinstance(_error(state), AlreadyQueuedError | TicketCancelledError):
        return None
    if not state.is_crashed():
        return _failure(flow_run, state, _reason(state), killed=False)
    text = state.message or ""
    code = _EXIT.search(text)
    if _STOPPED_BY_SIGNAL.search(text) or (code and int(code[1]) in _STOPPED_CODES):
        return None
    reason = f"Its process ended with code {code[1]}." if code else text if text == KILLED else _reason(state)
    return _failure(flow_run, state, reason, killed=True)


def _failure(flow_run: FlowRun, state: State, reason: str, killed: bool) -> Message:
    parameters = flow_run.parameters or {}
    style = str(parameters.get("name") or parameters.get("dataset") or "")
    pages = prefect_pages()
    links = [MessageLink(label="Run", address=f"{pages}/runs/flow-run/{flow_run.id}")] if pages else []
    attempt = f"{flow_run.id}-{state.timestamp:%Y%m%d%H%M%S}"  # a run that is retried keeps its id
    return failure_message(style, flow_run.name, attempt, reason, killed, links)


def _reason(state: State) -> str:
    """Return the message of an error of ours; of any other error only its class, because its text may hold secrets."""
    error = _error(state)
    if isinstance(error, SdloraError):
        return str(error)
    name = f"{type(error).__name__}. " if isinstance(error, BaseException) else ""
    return f"{name}The log of the run has the details."


def _error(state: State) -> object:
    """Return the error of a failed run, which Prefect wraps in a record."""
    return getattr(state.data, "result", state.data)


def _home_of(flow_run: FlowRun) -> Path | None:
    home = (flow_run.parameters or {}).get("home")
    return Path(home) if home else None
