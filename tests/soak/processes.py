"""Processes of a soak: how they are recognised, what they are, and how much memory they have."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import psutil

MARK = "SDLORA_SOAK"
"""Variable by which every process of a soak is known, whoever its parent is."""
RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"


def marked(mark: str) -> list[psutil.Process]:
    """List the living processes whose variable `MARK` has this value."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def role_of(process: psutil.Process) -> str | None:
    """Return which part of `sdlora up` a process is: prefect, mlflow, worker or watcher; None for all others."""
    with contextlib.suppress(psutil.Error):
        if RUN_VARIABLE in process.environ():
            return None
        line = " ".join(process.cmdline())
        if "deployments.arrivals.watcher" in line:
            return "watcher"
        if re.search(r"deployments\.servers\.worker|prefect worker start", line):
            return "worker"
        if "mlflow" in line and re.search(r"uvicorn|gunicorn|mlflow server|mlflow\.server|mlflow_server", line):
            return "mlflow"
        if re.search(r"prefect server start|prefect\.server\.api\.server|servers\.prefect_server", line):
            return "prefect"
    return None


def pss_bytes(process: psutil.Process) -> int:
    """Return the proportional set size: shared pages are divided among their users."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
