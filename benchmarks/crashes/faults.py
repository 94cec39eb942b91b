"""Faults that are put on a run in a terminal, or on the servers and the disk that it uses."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from benchmarks.crashes.marks import PATIENCE_SECONDS
from benchmarks.crashes.setting import Setting
from tests import false_clock
from tests.outages import Forwarder

AWAY_SECONDS = 300.0
"""Length of the longest outage that a run has to survive; the default retries of most clients are far too few."""


@dataclass(frozen=True)
class Fault:
    """Fault that is put on a running process.

    Attributes:
        strike: does it, and returns when work can go on; False if there was nothing to strike.
        ends_run: whether the run has to be started again.
        repair: undoes it before the next start.
        needs: what the chain runs on, see `setting_for`.
    """

    name: str
    strike: Callable[[Setting, subprocess.Popen[bytes]], bool]
    ends_run: bool
    repair: Callable[[Setting], None] = lambda setting: None
    needs: tuple[str, ...] = ()


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    return []


def _wait(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):  # the chain says that it did not end
        process.wait(PATIENCE_SECONDS)


def kill_run(setting: Setting, process: subprocess.Popen[bytes]) -> bool:
    process.kill()
    process.wait()
    return True


def kill_everything(setting: Setting, process: subprocess.Popen[bytes]) -> bool:
    """Kill the run, its servers and MLflow at the same moment, as a reboot does after its time-out."""
    for member in _family(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
    if setting.mlflow_server:
        setting.mlflow_server.kill()
        setting.mlflow_server.wait()
        setting.restart_mlflow()
    return True


def terminate_run(setting: Setting, process: subprocess.Popen[bytes]) -> bool:
    process.terminate()
    _wait(process)
    return True


def kill_prefect(setting: Setting, process: subprocess.Popen[bytes]) -> bool:
    is_struck = False
    for member in _family(process)[1:]:
        with contextlib.suppress(psutil.Error):
            if "prefect_server:create_app" in " ".join(member.cmdline()):
                member.kill()
                is_struck = True
    return is_struck  # it may wait for its next start


def stop_run(seconds: float, setting: Setting, process: subprocess.Popen[bytes]) -> bool:
    members = _family(process)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.send_signal(number)
        if number == signal.SIGSTOP:
            time.sleep(seconds)
    return True


def take_away(names: tuple[str, ...], seconds: float, setting: Setting, process: subprocess.Popen[bytes]) -> bool:
    forwarders: list[Forwarder] = [getattr(setting, name) for name in names]
    for forwarder in forwarders:
        forwarder.cut()
    time.sleep(seconds)
    for forwarder in forwarders:
        forwarder.restore()
    return True


def kill_mlflow(setting: Setting, process: subprocess.Popen[bytes]) -> bool:
    assert setting.mlflow_server
    setting.mlflow_server.kill()
    setting.mlflow_server.wait()
    setting.restart_mlflow()
    return True


def shift_clock(setting: Setting, process: subprocess.Popen[bytes]) -> bool:
    """Set the clock of the run and its server an hour forth, and an hour back at the next stage."""
    assert setting.clock
    setting.clock.set(0 if setting.clock.is_ahead else 3600)
    return True


def fill_disk(setting: Setting, process: subprocess.Popen[bytes]) -> bool:
    """Fill the disk, and what the run frees, until the run has ended."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    with (setting.disk / "filler").open("wb", buffering=0) as filler:
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                while filler.write(b"\0" * 2**20):
                    pass
            time.sleep(0.02)
    return True


def empty_disk(setting: Setting) -> None:
    (setting.disk / "filler").unlink(missing_ok=True)


def faults(away_seconds: float = AWAY_SECONDS) -> dict[str, Fault]:
    """Return all faults by name."""

    def away(label: str, *names: str) -> Fault:
        strike = functools.partial(take_away, names, away_seconds)
        return Fault(f"{label} away for {away_seconds:.0f} s", strike, ends_run=False, needs=names)

    return {
        "killed": Fault("run killed (SIGKILL)", kill_run, ends_run=True),
        "terminated": Fault("run stopped (SIGTERM)", terminate_run, ends_run=True),
        "reboot": Fault("run and servers killed at once", kill_everything, ends_run=True, needs=("mlflow",)),
        "prefect": Fault("Prefect server killed", kill_prefect, ends_run=False),
        "mlflow": Fault("MLflow server killed", kill_mlflow, ends_run=False, needs=("mlflow",)),
        "prefect-away": away("Prefect", "prefect"),
        "mlflow-away": away("MLflow", "mlflow"),
        "postgres-away": away("PostgreSQL", "postgres"),
        "all-away": away("Prefect, MLflow and PostgreSQL", "prefect", "mlflow", "postgres"),
        "stopped": Fault("run stopped for 10 s (SIGSTOP)", functools.partial(stop_run, 10.0), ends_run=False),
        "clock": Fault("clock an hour forth, then back", shift_clock, ends_run=False, needs=("clock",)),
        "disk": Fault("disk full", fill_disk, ends_run=True, repair=empty_disk, needs=("small disk",)),
    }


def missing(fault: Fault, postgres: str | None) -> str | None:
    """Return why a fault cannot be tried here; None if it can."""
    if "postgres" in fault.needs and postgres is None:
        return "no --postgres"
    if "clock" in fault.needs and (reason := false_clock.missing()):
        return reason
    if "small disk" in fault.needs and os.geteuid() != 0:
        return "only root can mount a small disk"
    return None
