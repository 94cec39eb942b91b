"""Faults that are put on a running `sdlora up`: its worker killed, and `sdlora up` itself killed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.crashes.chain import AWAY_ALREADY, NOT_REACHED, Chain, Entries, delay
from benchmarks.crashes.marks import PATIENCE_SECONDS
from benchmarks.crashes.setting import Setting
from tests.integration.test_up import processes_of
from tests.stack import RunningStack, start_stack

ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
FAULTS = {"worker": "worker killed (SIGKILL)", "up": "`sdlora up` killed (SIGKILL)"}


def run_stack(
    fault: str, setting: Setting, usual: Mapping[str, float], generator: random.Random, stages: Sequence[str]
) -> Chain:
    """Strike at each of the stages, and return the outcomes; `usual` are the seconds of the stages without a fault.

    After a kill of the worker, the run has to go on. After a kill of `sdlora up`, it is started again and asked for a
    run, which has to continue.
    """
    chain, entries = Chain(), Entries(setting.marks, stages, setting.strike_until)
    stack, run = _start(setting)
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        while (state := _ask(stack, f"flow_runs/{run}")["state"])["type"] not in ENDED:
            if time.monotonic() > deadline:
                chain.problem = f"the run is still {state['name']} after {PATIENCE_SECONDS:.0f} s"
                return chain
            if (entry := _next(entries, seconds=1.0)) is None:
                continue
            stage, _ = entry
            time.sleep(delay(usual[stage], generator))
            if fault == "worker":
                chain.rows[stage] = "goes on" if _kill_worker(setting.home) else AWAY_ALREADY
                continue
            chain.rows[stage] = "continues"
            stack.process.kill()
            stack.process.wait()
            if left := _wait_for_end(setting.home):
                chain.problem = f"processes are left after 120 s: {left}"
                return chain
            setting.marks.close()
            entries.skip()
            stack, run = _start(setting)
            deadline = time.monotonic() + PATIENCE_SECONDS
        if state["type"] != "COMPLETED":
            chain.problem = f"run {state['name']}, {state['message']}"
    finally:
        chain.rows |= dict.fromkeys(entries.left, NOT_REACHED)
        stack.process.terminate()
        stack.process.wait(120)
    return chain


def _next(entries: Entries, seconds: float) -> tuple[str, float] | None:
    """Return the next stage that is entered within some seconds; None if there is none."""
    deadline = time.monotonic() + seconds
    while (entry := entries.next()) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return entry


def _start(setting: Setting) -> tuple[RunningStack, str]:
    stack = start_stack(setting.home, setting.config, setting.variables | setting.marks.variables)
    stack.wait_for("Stop everything", PATIENCE_SECONDS)
    deployment = _ask(stack, "deployments/name/retrain/retrain")
    asked = {"parameters": {}, "idempotency_key": f"crashes-{stack.process.pid}"}
    return stack, _ask(stack, f"deployments/{deployment['id']}/create_flow_run", asked)["id"]


def _ask(stack: RunningStack, path: str, body: object = None) -> Any:
    """Call the server, again if a busy machine lets it take more than a minute for the answer."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return stack.api(path, body)
        except OSError:
            if time.monotonic() > deadline:
                raise


def _kill_worker(home: Path) -> bool:
    """Kill the worker; False if none runs, because it waits for its next start."""
    workers = [pid for pid, line in processes_of(home).items() if "deployments.servers.worker" in line]
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    return bool(workers)


def _wait_for_end(home: Path, seconds: float = 120.0) -> dict[int, str]:
    deadline = time.monotonic() + seconds
    while (left := processes_of(home)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left
