"""Command `queue`: what trains, what waits, and how the last runs ended."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.json_output import print_json
from deployments.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from deployments.cli.stores import existing_store, has_store
from deployments.cli.terminal import console, plain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from rich.table import Table

    from sdlora.store.tickets import Ticket


def queue(
    home: HomeOption = DEFAULT_HOME,
    ended: Annotated[int, typer.Option("--ended", min=0, metavar="N", help="Also the last N runs that ended.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Show what trains and what waits for a device, in the order of the queue.

    A run joins the queue once it has something to train. SDLORA_DEVICES names the devices of this machine.

    Example: [bold]sdlora queue --ended 5[/]
    """
    from sdlora.processes.slots import DEVICES, slots_of
    from sdlora.store.tickets import ended_tickets
    from sdlora.store.training_queue import TrainingQueue

    slots = slots_of(os.environ.get(DEVICES))
    active: list[Ticket] = []
    past: list[Ticket] = []
    if has_store(home):
        with existing_store(home) as store:
            active = TrainingQueue(store.database, slots).tickets()
            with store.read() as session:
                past = ended_tickets(session, ended)
    if as_json:
        print_json({"slots": slots, "tickets": _objects(active), "ended": _objects(past)})
        return
    if active:
        console.print(_active_table(active))
    else:
        console.print("Nothing trains and nothing waits.")
    if past:
        console.print(_ended_table(past))


def places(tickets: Sequence[Ticket]) -> dict[int, int | None]:
    """Return each ticket's place in the queue of its machine; None for one that does not wait."""
    waiting: dict[str, int] = {}
    found: dict[int, int | None] = {}
    for ticket in tickets:
        found[ticket.id] = None
        if ticket.state == "waiting":
            waiting[ticket.holder.host] = waiting.get(ticket.holder.host, 0) + 1
            found[ticket.id] = waiting[ticket.holder.host]
    return found


def _objects(tickets: Sequence[Ticket]) -> list[dict[str, object]]:
    place = places(tickets)
    return [
        {
            "number": ticket.id,
            "style": ticket.request.style,
            "what": ticket.request.what,
            "asked_by": ticket.request.asked_by,
            "state": ticket.state,
            "reason": ticket.reason,
            "place": place[ticket.id],
            "device": ticket.device,
            "host": ticket.holder.host,
            "pid": ticket.holder.pid,
            "run_digest": ticket.request.run_digest,
            "flow_run_id": ticket.request.flow_run_id,
            "cancelled_by": ticket.cancelled_by,
            "asked_at": ticket.asked_at,
            "taken_at": ticket.taken_at,
            "ended_at": ticket.ended_at,
            "heartbeat_at": ticket.heartbeat_at,
        }
        for ticket in tickets
    ]


def _active_table(tickets: Sequence[Ticket]) -> Table:
    from rich.table import Table

    place = places(tickets)
    several = len({ticket.holder.host for ticket in tickets}) > 1
    table = Table(*("place", "ticket", "style", "asked by", "state", "device", "since"), box=None, padding=(0, 1, 0, 0))
    if several:
        table.add_column("machine")
    for ticket in tickets:
        state = "stopping" if ticket.cancelled_by else ticket.state
        since = _time(ticket.taken_at or ticket.asked_at)
        cells = [str(place[ticket.id] or ""), str(ticket.id), ticket.title, ticket.request.asked_by, state]
        cells += [ticket.device or "", since, *([ticket.holder.host] if several else [])]
        table.add_row(*map(plain, cells))
    return table


def _ended_table(tickets: Sequence[Ticket]) -> Table:
    from rich.table import Table

    table = Table("ended", "ticket", "style", "asked by", "outcome", "reason", box=None, padding=(0, 1, 0, 0))
    for ticket in tickets:
        cells = (_time(ticket.ended_at), str(ticket.id), ticket.title, ticket.request.asked_by, ticket.state)
        table.add_row(*map(plain, (*cells, ticket.reason or "")))
    return table


def _time(moment: datetime | None) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M") if moment else ""
