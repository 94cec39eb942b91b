"""Readable names of runs: style, time and new images, such as `icons, 2026-11-29 16:40, 24 new images`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from tasks.run_log import log_text, run_log

_SUBJECT_LENGTH = 60


def starting_name() -> str:
    """Return the name of the running flow at its start, for `@flow(flow_run_name=starting_name)`."""
    context = FlowRunContext.get()
    # The run has to start even with wrong parameters: a task refuses them later, with a message.
    subject = _subject(context.parameters or {}) if context else ""
    flow = context.flow.name if context and context.flow else ""
    when = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    return f"{log_text(subject or flow or 'run', _SUBJECT_LENGTH)}, {when}"


def add_to_name(detail: str) -> None:
    """Append a detail to the name of the running flow; a failure is only logged."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None:
        return
    name = f"{run.name}, {log_text(detail, _SUBJECT_LENGTH)}"
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run(run.id, name=name).raise_for_status()
    except Exception:  # any error of the client: a name is not worth a failed run
        log = run_log()
        log.warning("The run could not be renamed to %r.", name, exc_info=True)


def count_of(number: int, noun: str) -> str:
    """Format a count: `1 new image`, `24 new images`, `no new images`."""
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _subject(parameters: Mapping[str, Any]) -> str:
    """Return the subject of the run: its prompt, style or plan, else its sources."""
    if parameters.get("prompt"):
        drawn_by = parameters.get("name") or parameters.get("which")
        return f"{log_text(parameters['prompt'], _SUBJECT_LENGTH - 20)} by {drawn_by}"
    name = parameters.get("name") or _field(parameters.get("plan"), "name")
    if name:
        methods = parameters.get("methods")
        return f"{name}: {' and '.join(map(str, methods))}" if methods else str(name)
    sources = parameters.get("sources") or ()
    return " and ".join(str(source).rstrip("/").rpartition("/")[2] for source in sources)


def _field(section: Any, name: str) -> Any:
    return section.get(name) if isinstance(section, Mapping) else getattr(section, name, None)
