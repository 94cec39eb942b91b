"""Origin of the running flow run: a person, the clock of a schedule, or a trigger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from prefect.context import FlowRunContext

from sdlora.store.starts import KEY_PREFIX

AskedBy = Literal["person", "clock", "trigger"]

_in_the_name_of: ContextVar[AskedBy | None] = ContextVar("in_the_name_of", default=None)


@contextmanager
def in_the_name_of(who: AskedBy) -> Iterator[None]:
    """Let the flow run count as `who`'s for the length of the block, such as after a person moved it forward."""
    token = _in_the_name_of.set(who)
    try:
        yield
    finally:
        _in_the_name_of.reset(token)


def asked_by() -> AskedBy:
    """Return the origin of the running flow run.

    The clock's runs are those that Prefect's scheduler creates ahead of time. A trigger's runs are created for new
    data (`tasks/waiting/triggers.py`), or by an automation. All others are a person's: the page, a terminal, a REST
    call, a notebook, also without a flow run. A run that somebody retries keeps its origin, except for the block of
    `in_the_name_of`.
    """
    if who := _in_the_name_of.get():
        return who
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None:
        return "person"
    if run.auto_scheduled:
        return "clock"
    if (run.idempotency_key or "").startswith(KEY_PREFIX):
        return "trigger"
    return "trigger" if run.created_by and run.created_by.type == "AUTOMATION" else "person"
