"""One function for every cause: an event in Prefect, and a message for each recipient that wants it."""

from __future__ import annotations

import os
from pathlib import Path

from prefect.events import emit_event
from prefect.settings import PREFECT_API_URL

from sdlora.release.messages import Message
from tasks.notify.outbox import deliver, put
from tasks.notify.recipients import load_recipients
from tasks.run_log import run_log

PREFECT_PAGES = "SDLORA_PREFECT_PAGES"
"""Address of Prefect's pages, for links; empty if the server of the run has none."""


def tell(home: Path, *messages: Message) -> None:
    """Tell people: emit an event, put the message into the outbox, and send what is there.

    Nobody hears of anything before `sdlora notify add`; the events are emitted all the same. A failure is a warning,
    because no message is worth a failed run.
    """
    try:
        announce(home, *messages)
        if PREFECT_API_URL.value():  # else only `sdlora up` and runs can get the addresses: they send what is there
            deliver(home)
    except Exception:  # whatever a library raises
        log = run_log()
        log.warning("A message could not be prepared", exc_info=True)


def announce(home: Path, *messages: Message) -> None:
    """Emit the events and fill the outbox, without sending anything yet."""
    recipients = load_recipients(home)
    for message in messages:
        put(home, [recipient for recipient in recipients if recipient.wants(message)], message)
    for message in messages:
        _emit(message)


def _emit(message: Message) -> None:
    """Emit the event `sdlora.<kind>` about the resource `sdlora.style.<style>`."""
    if not PREFECT_API_URL.value():  # without a server, Prefect would start one for the event
        return
    emit_event(
        f"sdlora.{message.kind}",
        resource={
            "prefect.resource.id": f"sdlora.style.{message.style or 'none'}",
            "prefect.resource.name": message.style or "no style",
        },
        payload={
            "subject": message.subject,
            "lines": list(message.lines),
            "links": [link.model_dump() for link in message.links],
            **message.facts,
        },
    )


def prefect_pages() -> str | None:
    """Return the address of Prefect's pages; None if the server of the run has none."""
    pages = os.environ.get(PREFECT_PAGES)
    if pages is None:
        pages = (PREFECT_API_URL.value() or "").rstrip("/").removesuffix("/api")
    return pages or None
