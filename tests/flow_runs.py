"""Flow runs of a running `sdlora up`: started by the clock, waited for, ended for the next test."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from deployments.servers.earlier_runs import flow_processes
from tests.stack import PATIENCE_SECONDS, RunningStack

_LONGEST_LEAD_SECONDS = 600.0


def until(condition: Callable[[], Any], patience_seconds: float = PATIENCE_SECONDS) -> Any:
    """Ask until the answer is true; returns the answer."""
    deadline = time.monotonic() + patience_seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.5)  # what is asked is mostly a server, whose answers cost processor time
    return found


def clock_starts(stack: RunningStack, style: str, seconds: float = 1.0) -> str:
    """Let the clock start a style once, some seconds from now; return the id of the flow run."""
    deployment = stack.deployment(style)
    before = set(runs_of_the_clock(stack, deployment))
    while True:
        # A server that answers after the anchor's time makes no run: the next one is due ten years later.
        anchor = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
        once = {"interval": 10 * 365 * 86400, "anchor_date": anchor}
        (made,) = stack.api(f"deployments/{deployment}/schedules", [{"schedule": once, "active": True}])
        stack.api(f"deployments/{deployment}/schedule", {"min_runs": 1})
        if new := set(runs_of_the_clock(stack, deployment)) - before:
            break
        stack.api(f"deployments/{deployment}/schedules/{made['id']}", method="DELETE")
        seconds *= 2
        assert seconds < _LONGEST_LEAD_SECONDS, "the clock makes no run"
    (run,) = new
    return run


def runs_of_the_clock(stack: RunningStack, deployment: str, state_types: tuple[str, ...] = ()) -> list[str]:
    """Return the ids of a deployment's runs of the clock that are due within a year, the earliest first."""
    wanted: dict[str, Any] = {
        "deployment_id": {"any_": [deployment]},
        "tags": {"all_": ["auto-scheduled"]},
        "expected_start_time": {"before_": f"{datetime.now(UTC).year + 1}-12-31T00:00:00Z"},
    }
    if state_types:
        wanted["state"] = {"type": {"any_": list(state_types)}}
    found = stack.api("flow_runs/filter", {"flow_runs": wanted, "sort": "EXPECTED_START_TIME_ASC"})
    return [str(run["id"]) for run in found]


def end_all_runs(stack: RunningStack) -> None:
    """Cancel all runs that are not over, and wait for the end of their processes: those of a test that failed."""
    unfinished = {"state": {"type": {"any_": ["PENDING", "RUNNING", "PAUSED"]}}}

    def is_quiet() -> bool:
        for run in stack.api("flow_runs/filter", {"flow_runs": unfinished}):
            stack.api(f"flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING"}})
        return not flow_processes(stack.home)

    until(is_quiet)
