"""A server of `sdlora up` that ends is started again, after a wait that grows."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from deployments.servers.services import LOG_BYTES, Service, listen_at
from deployments.servers.supervise import LONGEST_WAIT_SECONDS, STEADY_SECONDS, Supervisor
from tests.waiting import PATIENCE_SECONDS

SERVE = """
import socket
from http.server import HTTPServer, SimpleHTTPRequestHandler
server = HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler, bind_and_activate=False)
server.socket = socket.socket(fileno=0)
server.serve_forever()
"""


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def supervised(tmp_path: Path, clock: Clock, code: str):
    said: list[str] = []
    ready: list[str] = []
    service = Service("The server", [sys.executable, "-c", code], {}, tmp_path / "logs" / "server.log")
    supervisor = Supervisor(said.append, lambda: ready.append("ready"), clock)
    supervisor.add(service)
    return service, supervisor, said, ready


def wait_for_end(service: Service) -> None:
    service.process.wait(timeout=PATIENCE_SECONDS)


def test_a_service_that_ends_is_started_again_and_both_are_told(tmp_path, clock):
    service, supervisor, said, ready = supervised(tmp_path, clock, "import time; time.sleep(600)")
    supervisor.check()
    assert said == []
    first = service.process.pid
    service.process.kill()
    wait_for_end(service)
    supervisor.check()
    assert said == [f"The server was killed by signal 9. It starts again in 1 s. Its log: {service.log}"]
    assert supervisor.down == ["The server"]
    supervisor.check()
    assert service.ended, "it starts only after the wait"
    clock.now += 1
    supervisor.check()
    assert service.process.pid != first
    assert not service.ended
    supervisor.check()
    assert (said[1:], ready, supervisor.down) == (["The server answers again."], ["ready"], [])
    service.stop(timeout_seconds=1)


def test_waits_grow_up_to_a_minute_and_shrink_after_a_steady_time(tmp_path, clock):
    service, supervisor, said, _ = supervised(tmp_path, clock, "raise SystemExit(3)")
    waits = []
    for _ in range(8):
        wait_for_end(service)
        supervisor.check()
        waits.append(int(said[-1].split("again in ")[1].split(" s.")[0]))
        assert "ended with code 3" in said[-1]
        clock.now += waits[-1]
        supervisor.check()
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert max(waits) == LONGEST_WAIT_SECONDS
    clock.now += STEADY_SECONDS + 1
    wait_for_end(service)
    supervisor.check()
    assert "starts again in 1 s" in said[-1]


def test_a_port_stays_ours_while_its_server_is_down_and_requests_wait(tmp_path):
    listener = listen_at(0, "server", "--port")
    port = listener.getsockname()[1]
    service = Service("The server", [sys.executable, "-c", SERVE], {}, tmp_path / "log", tmp_path, listener)
    service.wait_ready(f"http://127.0.0.1:{port}/")
    service.process.kill()
    wait_for_end(service)
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            thief.bind(("127.0.0.1", port))
    with socket.create_connection(("127.0.0.1", port)) as waiting:  # connected although no server runs
        waiting.sendall(b"GET / HTTP/1.0\r\n\r\n")
        service.restart()
        waiting.settimeout(PATIENCE_SECONDS)
        assert waiting.recv(100).startswith(b"HTTP/1.0 200")
    assert urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE_SECONDS).status == 200
    service.stop(timeout_seconds=1)
    listener.close()


def test_a_large_log_is_moved_aside_when_its_server_starts(tmp_path):
    log = tmp_path / "logs" / "server.log"
    log.parent.mkdir()
    log.write_bytes(b"x" * (LOG_BYTES + 1))
    Service("s", [sys.executable, "-c", "print('new')"], {}, log).process.wait(timeout=PATIENCE_SECONDS)
    assert log.read_text() == "new\n"
    assert log.with_name("server.log.1").stat().st_size == LOG_BYTES + 1


@pytest.mark.skipif(sys.platform != "linux", reason="relies on PR_SET_CHILD_SUBREAPER")
def test_children_of_a_killed_service_are_adopted_and_stopped(tmp_path):
    code = """
import os, signal, subprocess, sys, time
from pathlib import Path
from deployments.servers.services import Service, adopt_orphans, adopted_processes, stop_others
adopt_orphans()
child = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
child += " start_new_session=True); print(p.pid, flush=True); p.wait()"
log = Path(sys.argv[1])
service = Service("s", [sys.executable, "-c", child], {}, log)
while not log.read_text().strip():
    time.sleep(0.05)
orphan = int(log.read_text())
assert adopted_processes([service]) == []
service.process.kill()
service.process.wait()
while not adopted_processes([service]):
    time.sleep(0.05)
assert [process.pid for process in adopted_processes([service])] == [orphan]
stop_others(adopted_processes([service]))
assert adopted_processes([service]) == []
print("stopped", orphan)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log")], capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 0, done.stderr
    assert not psutil.pid_exists(int(done.stdout.split()[1]))
