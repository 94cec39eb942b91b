"""The Prefect servers of `sdlora up` and `sdlora run` answer their owner alone."""

from __future__ import annotations

from tests.stack import RunningStack

PUBLIC = {"/health", "/ready"}


def calls(stack: RunningStack) -> list[tuple[str, str]]:
    """Every method and path of the server, with something in place of what a path leaves open."""
    paths = stack.api("../openapi.json")["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def test_no_call_is_answered_without_the_password(running_stack):
    print(calls(running_stack)[:5])
