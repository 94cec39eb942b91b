"""Runs that a person cancelled in Prefect's page, and whose processes were killed before they could record it.

Prefect kills a process that does not end within 30 seconds, for example in the middle of a long step of a library.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType

from sdlora.store.image_store import ImageStore
from sdlora.store.location import StoreLocation
from sdlora.store.tickets import record_cancelled, unreported_ends

IN_PAGE = "Cancelled in Prefect's page."
_DAYS = 2
_CANCELS = (StateType.CANCELLING, StateType.CANCELLED)
_STARTS = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING)


def record_page_cancels(home: Path, run: tuple[str, str] | None = None) -> None:
    """Ask Prefect about runs whose processes ended without a report, and record those that a person cancelled.

    Args:
        run: style and digest of the only run to ask about; otherwise all runs of the last days.
    """
    location = StoreLocation.of_home(home)
    if not location.may_hold_images:
        return
    since = None if run else datetime.now(UTC) - timedelta(days=_DAYS)
    with ImageStore.open(home, location) as store:
        with store.read() as session:
            tickets = unreported_ends(session, since, run)
        for ticket in tickets:
            if ticket.request.flow_run_id and was_cancelled(UUID(ticket.request.flow_run_id)):
                with store.write() as session:
                    record_cancelled(session, ticket, IN_PAGE)


def was_cancelled(run_id: UUID) -> bool:
    """Return True if a person cancelled a run in Prefect's page since its last start; False without an answer.

    The last state does not say it: a run whose process is gone is marked as crashed, whatever was asked before.
    """
    try:
        with get_client(sync_client=True) as client:
            states = client.read_flow_run_states(run_id)
    except Exception:  # noqa: BLE001  # another server's run, or no server: nobody is known to have cancelled it
        return False
    for state in sorted(states, key=lambda state: state.timestamp, reverse=True):
        if state.type in _CANCELS:
            return True
        if state.type in _STARTS:
            return False
    return False
