"""Faults of crashes.py that are put on a running `sdlora up`: its worker killed, and `sdlora up` itself killed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from tests.integration.test_up import processes_of
from tests.stack import RunningStack, start_stack

ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
PATIENCE_SECONDS = 900.0
FAULTS = {"worker": "worker killed (SIGKILL)", "up": "`sdlora up` killed (SIGKILL)"}


def run_stack(
    fault: str,
    home: Path,
    config: Path,
    variables: Mapping[str, str],
    tasks: Mapping[str, str],
    generator: random.Random,
) -> tuple[dict[str, str], str | None]:
    """Strike at the stages, whose tasks are named; return the outcomes by stage, and what went wrong.

    After a kill of the worker, the run has to go on. After a kill of `sdlora up`, it is started again and asked for a
    run, which has to continue. A kill falls up to 2 s after the stage began.
    """
    rows: dict[str, str] = {}
    stack, run = _start(home, config, variables)
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        while (state := stack.api(f"flow_runs/{run}")["state"])["type"] not in ENDED:
            if time.monotonic() > deadline:
                return rows, f"the run is still {state['name']} after {PATIENCE_SECONDS:.0f} s"
            if (stage := _begun_stage(stack, run, {name: tasks[name] for name in tasks if name not in rows})) is None:
                time.sleep(0.1)
                continue
            time.sleep(generator.random() * 2.0)
            if fault == "up":
                rows[stage] = "continues"
                stack.process.kill()
                stack.process.wait()
                if left := _wait_for_end(home):
                    return rows, f"processes are left after 120 s: {left}"
                stack, run = _start(home, config, variables)
                deadline = time.monotonic() + PATIENCE_SECONDS
            else:
                rows[stage] = "goes on"
                for pid, line in processes_of(home).items():
                    if "deployments.servers.worker" in line:
                        os.kill(pid, signal.SIGKILL)
        problem = None if state["type"] == "COMPLETED" else f"run {state['name']}, {state['message']}"
        return rows, problem
    finally:
        stack.process.terminate()
        stack.process.wait(120)


def _start(home: Path, config: Path, variables: Mapping[str, str]) -> tuple[RunningStack, str]:
    stack = start_stack(home, config, variables)
    stack.wait_for("Stop everything", PATIENCE_SECONDS)
    deployment = stack.api("deployments/name/retrain/retrain")
    return stack, stack.api(f"deployments/{deployment['id']}/create_flow_run", {"parameters": {}})["id"]


def _begun_stage(stack: RunningStack, run: str, tasks: Mapping[str, str]) -> str | None:
    asked = {"flow_runs": {"id": {"any_": [run]}}, "task_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
    running = {task["name"].rpartition("-")[0] for task in stack.api("task_runs/filter", asked)}
    return next((stage for stage, task in tasks.items() if task in running), None)


def _wait_for_end(home: Path, seconds: float = 120.0) -> dict[int, str]:
    deadline = time.monotonic() + seconds
    while (left := processes_of(home)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left
