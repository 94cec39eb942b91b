"""Transient failures, which are worth a retry."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State

PASSING = {"ConnectionError", "TimeoutError", "OperationalError"}


def is_transient(task: Any, task_run: Any, state: State[Any]) -> bool:
    """Return True for a busy database, network or server; False for a wrong setting or bad data.

    The causes of an error count, too, because libraries wrap errors. Classes are compared by name, so that this module
    imports none of those libraries.
    """
    error = state.result(raise_on_failure=False)
    while isinstance(error, BaseException):
        if PASSING & {kind.__name__ for kind in type(error).__mro__}:
            return True
        error = error.__cause__
    return False
