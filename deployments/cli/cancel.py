"""Command `cancel`: take a run out of the queue, or ask a training to save and stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.images import WhoOption, account_name
from deployments.cli.json_output import print_json
from deployments.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from deployments.cli.stores import existing_store
from deployments.cli.terminal import console, hint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sdlora.store.tickets import Ticket


def cancel(
    which: Annotated[
        str | None, typer.Argument(metavar="[STYLE|TICKET]", help="Needed where several runs wait or train.")
    ] = None,
    who: WhoOption = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Cancel a run that waits or trains. A training saves a checkpoint first and frees its device.

    No schedule starts the same run again until its images or settings change. [bold]sdlora run STYLE[/] continues it.

    Example: [bold]sdlora cancel comics[/]
    """
    from sdlora.store.training_queue import TrainingQueue

    with existing_store(home) as store:
        queue = TrainingQueue(store.database)
        chosen = _chosen(queue.tickets(), which)
        cancelled = [queue.cancel(ticket, who or account_name()) for ticket in chosen]
    if as_json:
        tickets = [
            {"number": ticket.id, "style": ticket.request.style, "what": ticket.request.what, "state": ticket.state}
            for ticket in cancelled
        ]
        print_json({"tickets": tickets})
        return
    for ticket in cancelled:
        if ticket.is_active:
            console.print(f"{ticket.title} saves a checkpoint and stops.", markup=False)
        else:
            console.print(f"{ticket.title} has left the queue.", markup=False)
    hint("Nothing starts it again by itself until its images or settings change. [bold]sdlora run[/] continues it.")


def _chosen(tickets: Sequence[Ticket], which: str | None) -> list[Ticket]:
    """Return the active tickets of a style, the one of a number, or the only one.

    Raises:
        ConfigError: there is none, or it is not clear which one is meant.
    """
    from sdlora.core.errors import ConfigError
    from sdlora.core.quoting import quoted

    if not tickets:
        raise ConfigError(
            "Nothing trains and nothing waits. A run that Prefect has not started yet is cancelled in its page."
        )
    known = ", ".join(f"{ticket.id} ({ticket.title})" for ticket in tickets)
    if which is None:
        if len(tickets) > 1:
            raise ConfigError(f"Which run? Name a style or a ticket. There are: {known}.")
        return list(tickets)
    chosen = [ticket for ticket in tickets if which in (ticket.request.style, str(ticket.id))]
    if not chosen:
        raise ConfigError(f"{quoted(which)} neither trains nor waits. There are: {known}.")
    return chosen
