"""`sdlora up` as a person uses it: everything starts, a run from the browser completes, Ctrl-C leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from deployments.services import free_port, require_free_port

pytestmark = pytest.mark.slow
PATIENCE_SECONDS = 300


@pytest.fixture
def stack(settings, tmp_path) -> Iterator[tuple[subprocess.Popen[str], Path, int, int]]:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    prefect, mlflow = free_port(), free_port()
    command = [sys.executable, "-m", "deployments.cli", "up", "--home", str(tmp_path / "home"), "--config", str(config)]
    command += ["--prefect-port", str(prefect), "--mlflow-port", str(mlflow)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    yield process, tmp_path / "home", prefect, mlflow
    process.terminate()
    process.wait(60)


def wait_for_line(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if word in line:
            return said
    raise AssertionError(f"it ended without saying {word!r}:\n{said}")


def call(port: int, path: str, body: object = None) -> dict[str, object]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/api/{path}", data, headers)) as reply:
        return json.loads(reply.read())


def processes_of(home: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SDLORA_HOME") == str(home):
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue
    return found


def test_a_run_started_over_the_api_completes_and_ctrl_c_leaves_nothing_behind(stack):
    process, home, prefect, mlflow = stack
    said = wait_for_line(process, "Stop everything")
    assert f"http://127.0.0.1:{prefect}" in said
    assert f"http://127.0.0.1:{mlflow}" in said

    deployment = call(prefect, "deployments/name/retrain/retrain")
    assert deployment["parameters"]["home"] == str(home)  # type: ignore[index]
    run = call(prefect, f"deployments/{deployment['id']}/create_flow_run", {})
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (state := call(prefect, f"flow_runs/{run['id']}")["state"])["type"] not in {"COMPLETED", "FAILED", "CRASHED"}:
        assert time.monotonic() < deadline, state
        time.sleep(1)
    assert state["type"] == "COMPLETED", state
    assert list(home.glob("runs/shapes/*/release/report.html"))

    process.send_signal(signal.SIGINT)
    assert process.wait(90) == 0
    assert processes_of(home) == []
    for port in (prefect, mlflow):
        require_free_port(port, "server", "--port")
    assert not (home / "services.json").exists()
