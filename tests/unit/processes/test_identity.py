"""Processes that have ended are told from those that live, without a clock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from sdlora.processes import identity
from sdlora.processes.identity import ProcessIdentity

ME = ProcessIdentity.of_this_process()


@pytest.fixture
def other():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = identity._start(process.pid)
    assert start is not None
    yield process, replace(ME, pid=process.pid, start=start)
    process.kill()
    process.wait()


def test_this_process_lives() -> None:
    assert (ME.pid, ME.is_on_this_machine, ME.has_ended) == (os.getpid(), True, False)
    assert ME.host == os.uname().nodename


def test_a_killed_process_has_ended_before_its_parent_has_reaped_it(other) -> None:
    process, who = other
    assert not who.has_ended
    process.send_signal(signal.SIGSTOP)
    assert not who.has_ended  # it may go on
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert who.has_ended
    process.wait()
    assert who.has_ended


def test_a_later_process_of_the_same_id_is_another_one() -> None:
    assert replace(ME, start="12").has_ended


def test_nothing_is_known_of_a_process_of_another_machine_or_of_before_a_restart() -> None:
    for machine in ("elsewhere 1 pid:[1]", f"{ME.host} another-boot pid:[1]"):
        there = replace(ME, machine=machine, pid=2**22 + 1)
        assert (there.is_on_this_machine, there.has_ended) == (False, False)


@pytest.mark.parametrize("there", [True, False])
def test_systems_without_proc_tell_them_apart_too(other, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    process, _ = other
    monkeypatch.setattr(identity.Path, "read_text", _refuse)
    start = identity._start(process.pid)
    assert start is not None
    if not there:
        process.kill()
        process.wait()
    assert (identity._start(process.pid) == start) is there
    assert identity._kernel().isdecimal()


def _refuse(path: object) -> str:
    raise FileNotFoundError(path)
