"""Which servers are believed to be those of a running `sdlora up`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deployments.servers.running import LOCK_FILE, SERVICES_FILE, running_services, stack_lock
from deployments.servers.services import Service, ServiceError, answers, free_port
from sdlora.core.errors import ConfigError
from tests.waiting import wait_until

SERVE = "from http.server import *; HTTPServer(('127.0.0.1', {port}), SimpleHTTPRequestHandler).serve_forever()"
# What `sdlora up` does, with a plain web server for Prefect.
STACK = """
import sys, time
from pathlib import Path
from deployments.servers.running import record_services, stack_lock
from deployments.servers.services import Service
home, url, code = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
with stack_lock(home):
    server = Service("server", [sys.executable, "-c", code], {}, home / "log")
    server.wait_ready(url + "/")
    record_services(home, {"prefect": (url, server)})
    print("ready", flush=True)
    time.sleep(3600)
"""
# A foreign server that gets the port as soon as the one before has ended, and says so.
SQUAT = """
import time
from http.server import HTTPServer, SimpleHTTPRequestHandler
while True:
    try:
        server = HTTPServer(("127.0.0.1", {port}), SimpleHTTPRequestHandler)
        break
    except OSError:
        time.sleep(0.05)
print("has it", flush=True)
server.serve_forever()
"""


@pytest.fixture
def stack(tmp_path):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-c", STACK, str(tmp_path), url, SERVE.format(port=port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        yield process, tmp_path, port
        process.kill()


@contextmanager
def squatting(port: int) -> Iterator[None]:
    """A foreign server at the port; it ends with the block, however the block ends."""
    command = [sys.executable, "-c", SQUAT.format(port=port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout.readline() == "has it\n"
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/"), "an answer of the foreign server")
            yield
        finally:
            process.kill()


def test_a_living_stack_is_found_with_its_addresses(stack):
    _, home, port = stack
    assert running_services(home) == {"prefect": f"http://127.0.0.1:{port}"}


def test_nothing_is_found_where_nothing_runs(tmp_path):
    assert running_services(tmp_path) is None
    (tmp_path / SERVICES_FILE).write_text("{}")
    assert running_services(tmp_path) is None


def test_what_a_killed_stack_leaves_behind_is_not_believed_though_its_port_answers(stack):
    process, home, port = stack
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (home / SERVICES_FILE).exists()
    with squatting(port):
        assert running_services(home) is None


def test_another_process_on_the_port_of_a_living_stack_is_not_believed(stack):
    _, home, port = stack
    told = json.loads((home / SERVICES_FILE).read_text())
    os.kill(told["prefect"]["pid"], signal.SIGKILL)
    with squatting(port):
        assert running_services(home) is None


@pytest.mark.parametrize("change", [{"pid": os.getpid()}, {"created": 1.0}, {"pid": "1"}])
def test_a_process_id_that_belongs_to_another_by_now_is_not_believed(stack, change):
    _, home, _ = stack
    told = json.loads((home / SERVICES_FILE).read_text())
    told["prefect"] |= change
    (home / SERVICES_FILE).write_text(json.dumps(told))
    assert running_services(home) is None


@pytest.mark.parametrize("text", ["", "[]", '{"prefect": "http://127.0.0.1:1", "mlflow": "http://127.0.0.1:2"}'])
def test_a_file_of_another_version_is_not_believed(stack, text):
    _, home, _ = stack
    (home / SERVICES_FILE).write_text(text)
    assert not running_services(home)


def test_a_second_stack_of_the_folder_is_refused_with_the_address_of_the_first(stack):
    _, home, port = stack
    with pytest.raises(ConfigError, match=rf"running already: http://127.0.0.1:{port}"), stack_lock(home):
        pass


def test_the_lock_is_free_as_soon_as_a_stack_is_killed_and_its_file_is_cleared(stack):
    process, home, _ = stack
    process.send_signal(signal.SIGKILL)
    process.wait()
    with stack_lock(home):
        assert (home / LOCK_FILE).stat().st_mode & 0o077 == 0
    assert not (home / SERVICES_FILE).exists()


def test_a_server_is_not_ready_while_somebody_else_answers_at_its_port(tmp_path: Path):
    port = free_port()
    with squatting(port):
        late = Service("The server", [sys.executable, "-c", "import time; time.sleep(600)"], {}, tmp_path / "log")
        try:
            with pytest.raises(ServiceError, match="did not answer"):
                late.wait_ready(f"http://127.0.0.1:{port}/", timeout_seconds=1)
        finally:
            late.stop()
