"""Which failures may heal by themselves."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State


def is_passing_trouble(task: Any, task_run: Any, state: State[Any]) -> bool:
    """Retry on a busy database, a network or a server that is away; never on a wrong setting or bad data."""
    try:
        state.result()
    except Exception as error:  # noqa: BLE001  # looked at by class name, so that no layer's library is imported here
        names = {kind.__name__ for kind in type(error).__mro__}
        return bool(names & {"ConnectionError", "TimeoutError", "OperationalError", "HTTPError", "RestException"})
    return False
