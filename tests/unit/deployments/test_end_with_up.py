"""A flow run's process ends with `sdlora up`, by whatever it was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from deployments.servers.end_with_up import UP, end_with_up, variables_of_up
from deployments.servers.services import free_port
from sdlora.processes.identity import ProcessIdentity
from tests.waiting import wait_until

_STACK = """
import os, subprocess, sys
from deployments.servers.end_with_up import variables_of_up
run = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=os.environ | variables_of_up(), start_new_session=True)
print(run.pid, flush=True)
run.wait()
"""
_RUN = """
import signal, sys, time
from deployments.servers.end_with_up import end_with_up
{before}
end_with_up(seconds_to_save=0.5)
time.sleep(3600)
"""
_WAITING_RUN = """
from prefect.client.base import PrefectHttpxSyncClient
from deployments.servers.end_with_up import end_with_up
from deployments.servers.patience import wait_for_prefect
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as one whose engine reports its end
wait_for_prefect(600)
end_with_up()
PrefectHttpxSyncClient().get("http://127.0.0.1:PORT/api/health")
"""


def killed_with_its_run(code: str) -> ProcessIdentity:
    """Start a process as `sdlora up` that starts another, kill the first, and return the identity of the second."""
    up = subprocess.Popen([sys.executable, "-c", _STACK, code], stdout=subprocess.PIPE, text=True)
    assert up.stdout is not None
    run = ProcessIdentity(ProcessIdentity.of_this_process().machine, pid := int(up.stdout.readline()), start_of(pid))
    time.sleep(1.5)
    assert not run.has_ended
    up.kill()
    up.wait()
    return run


def start_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


@pytest.mark.skipif(sys.platform != "linux", reason="reads the start of a process from /proc")
@pytest.mark.parametrize(
    "code",
    [
        _RUN.format(before=""),
        _RUN.format(before="signal.signal(signal.SIGTERM, signal.SIG_IGN)"),
        _WAITING_RUN,
    ],
    ids=["one that saves", "one that does not end", "one that reports to a server which is gone"],
)
def test_the_run_of_a_killed_stack_ends_although_nobody_tells_it(code):
    run = killed_with_its_run(code.replace("PORT", str(free_port())))
    try:
        wait_until(lambda: run.has_ended, "the end of the run")
    finally:
        if not run.has_ended:
            os.kill(run.pid, signal.SIGKILL)


def test_a_run_that_no_stack_has_started_watches_nothing():
    assert end_with_up({}) is None
    assert json.loads(variables_of_up()[UP]) == asdict(ProcessIdentity.of_this_process())
