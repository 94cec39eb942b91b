"""Which failures may heal by themselves."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State

PASSING = {"ConnectionError", "TimeoutError", "OperationalError"}


def is_passing_trouble(task: Any, task_run: Any, state: State[Any]) -> bool:
    """Retry on a busy database, a network or a server that is away; never on a wrong setting or bad data.

    Causes are looked at, too, because libraries wrap them, and all by their classes' names, so that this module
    imports none of those libraries.
    """
    error = state.result(raise_on_failure=False)
    while isinstance(error, BaseException):
        if PASSING & {kind.__name__ for kind in type(error).__mro__}:
            return True
        error = error.__cause__
    return False
