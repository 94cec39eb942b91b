"""`sdlora status` and `sdlora down` where no servers run, half of them run, or a foreign process has the port."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.cli.app import app
from deployments.servers.running import service_records, stack_process, watcher_lock
from deployments.servers.services import free_port
from deployments.servers.status import stack_state
from deployments.servers.stopping import STOP_SECONDS
from tests.waiting import PATIENCE_SECONDS, wait_until

HEALTHY = """
from http.server import *
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
HTTPServer(('127.0.0.1', {port}), Handler).serve_forever()
"""
# What `sdlora up` does, with a plain web server for MLflow and a worker that sleeps; Prefect has ended.
STACK = """
import sys, time
from pathlib import Path
from deployments.servers.running import record_services, stack_lock
from deployments.servers.services import Service
home, port, code = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
with stack_lock(home):
    mlflow = Service("mlflow", [sys.executable, "-c", code], {}, home / "logs" / "mlflow-server.log")
    mlflow.wait_ready(f"http://127.0.0.1:{port}/health")
    prefect = Service("prefect", [sys.executable, "-c", ""], {}, home / "logs" / "prefect-server.log")
    prefect.process.wait()
    sleep = [sys.executable, "-c", "import time; time.sleep(3600)"]
    worker = Service("worker", sleep, {}, home / "logs" / "worker.log")
    watcher = Service("watcher", sleep, {}, home / "logs" / "watcher.log")
    record_services(home, {"prefect": ("http://127.0.0.1:9", prefect), "mlflow": (f"http://127.0.0.1:{port}", mlflow),
                           "worker": (None, worker), "watcher": (None, watcher)})
    print("ready", flush=True)
    try:
        time.sleep(3600)
    except KeyboardInterrupt:
        pass
    watcher.stop(1)
    worker.stop(1)
    mlflow.stop(1)
"""


@pytest.fixture
def half(tmp_path):
    """A stack whose Prefect server has ended."""
    port = free_port()
    home = tmp_path / "home"
    home.mkdir()
    command = [
        sys.executable,
        "-c",
        "import signal; signal.signal(signal.SIGTERM, signal.default_int_handler)\n" + STACK,
    ]
    command += [str(home), str(port), HEALTHY.format(port=port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield home, process, port
        process.kill()


def sdlora(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def test_each_service_is_told_from_its_process_and_its_answer(half):
    home, process, port = half
    assert stack_process(home) == process.pid
    # A web server that is slow to answer is called starting for a moment.
    state = wait_until(lambda: next((s for s in [stack_state(home)] if s.services[1].state == "running"), None))
    assert {each.name: each.state for each in state.services} == {
        "prefect": "down",
        "mlflow": "running",
        "worker": "running",
        "watcher": "starting",
    }
    assert not state.is_good
    assert state.runs is None
    done = sdlora("status", "--home", str(home))
    assert done.exit_code == 1
    rows = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert rows["MLflow server"].split()[2:] == ["running", f"http://127.0.0.1:{port}"]
    assert "down" in rows["Prefect server"]
    assert "GB free" in rows["disk"]
    found = json.loads(sdlora("status", "--json", "--home", str(home)).stdout)
    assert found["is_good"] is False
    assert found["pid"] == process.pid
    assert found["runs"] is None


def test_a_watcher_that_cannot_start_is_not_called_running(half):
    home, _, _ = half
    assert watcher_state(home) == "starting"  # its process lives, and does nothing
    with watcher_lock(home, threading.Event()):
        assert watcher_state(home) == "running"
    assert watcher_state(home) == "starting"


def watcher_state(home: Path) -> str:
    return next(each.state for each in stack_state(home).services if each.name == "watcher")


def test_down_stops_it_and_waits(half):
    home, process, _ = half
    done = sdlora("down", "--home", str(home))
    assert done.exit_code == 0, done.output
    assert "Stopped: MLflow server, worker, watcher." in done.stdout
    assert process.wait(PATIENCE_SECONDS) == 0
    assert stack_process(home) is None
    again = sdlora("down", "--json", "--home", str(home))
    assert json.loads(again.stdout) == {"was_up": False, "services": [], "ended_runs": [], "other_runs": []}


def test_down_says_if_the_command_does_not_end(half):
    home, process, _ = half
    process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    done = sdlora("down", "--timeout", "1", "--home", str(home))
    assert done.exit_code == 1
    assert f"kill -9 {process.pid}" in " ".join(done.stderr.split())
    assert time.monotonic() - began < STOP_SECONDS  # the time without the option


def test_where_nothing_runs_status_says_so_with_an_exit_status_and_creates_nothing(tmp_path):
    done = sdlora("status", "--home", str(tmp_path))
    assert done.exit_code == 1
    assert done.stdout.count("down") == 4
    assert "sdlora up" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert sdlora("status", "--home", str(tmp_path / "misspelt")).exit_code == 1
    assert not (tmp_path / "misspelt").exists()


def test_a_stale_lock_file_names_no_process(tmp_path):
    (tmp_path / "up.lock").write_text("1")
    assert stack_process(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"prefect": 1}', '{"prefect": {"pid": "x"}}'])
def test_a_damaged_record_is_no_record(tmp_path, text):
    (tmp_path / "services.json").write_text(text)
    assert service_records(tmp_path) == {}
