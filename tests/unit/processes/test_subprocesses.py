from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from sdlora.core.errors import TrainingError
from sdlora.processes.subprocesses import run_subprocess
from tests.waiting import PATIENCE_SECONDS, wait_until

WORKER = """
import logging, os, signal, sys, time
from pathlib import Path
from sdlora.core.errors import DataError
from sdlora.processes.subprocesses import worker_main, report

def work():
    report("at", os.getpid())
    kind, _, place = sys.argv[1].partition(":")
    if kind == "fail":
        raise DataError("the setting x is wrong")
    if kind == "break":
        raise RuntimeError("a fault of ours")
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "end":
        print("not a report")
        logging.getLogger("sdlora.somewhere").warning("two images cannot be used")
        return
    try:
        while True:
            time.sleep(0.05)
            report("waiting", os.getpid())
    except KeyboardInterrupt:
        Path(place).write_text("saved")
        raise

worker_main(work)
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "some_worker.py").write_text(textwrap.dedent(WORKER))
    root = Path(__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{root}")
    return "some_worker"


def run(worker: str, argument: str, folder: Path, on_report=lambda *_: None):
    run_subprocess(worker, argument, 1, folder / "log", on_report, gpu=False)


def test_reports_and_warnings_arrive_from_another_process_and_other_output_does_not(worker, tmp_path, caplog):
    heard = []
    run(worker, "end", tmp_path, lambda *call: heard.append(call))
    ((kind, (process,)),) = heard
    assert kind == "at" and process != os.getpid()
    assert caplog.messages == ["two images cannot be used"]


def test_a_failure_arrives_as_its_message_alone(worker, tmp_path):
    with pytest.raises(TrainingError, match=r"^the setting x is wrong$"):
        run(worker, "fail", tmp_path)
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_fault_of_ours_is_named_and_its_traceback_goes_to_the_log(worker, tmp_path):
    with pytest.raises(TrainingError, match=rf"RuntimeError: a fault of ours.*{tmp_path}/log.*same command continues"):
        run(worker, "break", tmp_path)
    assert "Traceback" in (tmp_path / "log").read_text()


def test_a_killed_process_is_told_from_a_failed_one(worker, tmp_path):
    with pytest.raises(TrainingError, match=r"was killed \(SIGKILL\).*memory.*same command continues"):
        run(worker, "die", tmp_path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_whatever_ends_the_wait_lets_the_process_save_and_leaves_none(worker, tmp_path, error):
    processes = []

    def on_report(kind, values):
        if kind == "waiting":
            processes.append(values[0])
            raise error

    with pytest.raises(error):
        run(worker, f"save:{tmp_path / 'saved'}", tmp_path, on_report)
    assert (tmp_path / "saved").read_text() == "saved"
    assert not psutil.pid_exists(processes[0])


def test_a_process_told_to_stop_by_others_counts_as_ctrl_c_here(worker, tmp_path):
    def on_report(kind, values):
        if kind == "waiting":  # and again, as often as it still reports
            os.kill(values[0], signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        run(worker, f"save:{tmp_path / 'saved'}", tmp_path, on_report)
    assert (tmp_path / "saved").exists()


def test_a_process_whose_parent_is_killed_saves_and_ends(worker, tmp_path):
    parent = (
        "import sys; from pathlib import Path; from sdlora.processes.subprocesses import run_subprocess; "
        f"run_subprocess('{worker}', 'save:{tmp_path / 'saved'}', 1, Path('{tmp_path / 'log'}'), "
        "lambda kind, values: kind == 'waiting' and print(values[0], flush=True), gpu=False)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        try:
            child = psutil.Process(int(started.stdout.readline()))
        finally:
            started.kill()
        child.wait(PATIENCE_SECONDS)
    wait_until((tmp_path / "saved").exists, "the end of the worker's work")
