"""Transient failures, which are worth a retry."""

from __future__ import annotations

from typing import Any, TypedDict

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


class Retries(TypedDict):
    """Options of a task that is repeated after a transient failure."""

    retries: int
    retry_delay_seconds: int
    retry_condition_fn: Any


RETRIED = Retries(retries=2, retry_delay_seconds=10, retry_condition_fn=is_transient)
"""Options of every task that reads or writes records.

A server that is away is waited for before a transaction or within a request. A transaction that loses its server is
rolled back, and its task is repeated: each of these tasks can be interrupted and repeated at any point.
"""
