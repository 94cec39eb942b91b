from __future__ import annotations

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deployments.local_run import PrefectServer
from deployments.servers.services import Service, ServiceError, answers, free_port, require_free_port
from sdlora.core.errors import ConfigError
from tests.waiting import wait_until

STUBBORN = (
    "import signal, subprocess, sys, time;"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session={own});"
    "print(child.pid, flush=True); time.sleep(600)"
)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # in the meantime
        return False


@pytest.mark.parametrize("own_session", [False, True])
def test_stopping_ends_stubborn_processes_and_their_children_wherever_they_are(tmp_path, own_session):
    log = tmp_path / "log"
    service = Service("stubborn", [sys.executable, "-c", STUBBORN.format(own=own_session)], {}, log)
    wait_until(lambda: log.read_text().endswith("\n"), "the start of the child")
    child = int(log.read_text())
    service.stop(timeout_seconds=0.3)
    assert service.process.poll() is not None
    wait_until(lambda: not is_alive(child), "the end of the child")


def test_a_service_that_dies_is_told_with_the_end_of_its_log(tmp_path):
    service = Service(
        "The server", [sys.executable, "-c", "print('port is cursed'); raise SystemExit(3)"], {}, tmp_path / "log"
    )
    with pytest.raises(ServiceError, match=r"The server ended with code 3[\s\S]*port is cursed"):
        service.wait_ready(f"http://127.0.0.1:{free_port()}")
    service.stop()


def test_a_service_that_never_answers_is_given_up(tmp_path):
    service = Service("The server", [sys.executable, "-c", "import time; time.sleep(600)"], {}, tmp_path / "log")
    with pytest.raises(ServiceError, match="did not answer within"):
        service.wait_ready(f"http://127.0.0.1:{free_port()}", timeout_seconds=0.3)
    service.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="relies on PR_SET_PDEATHSIG")
def test_services_end_with_a_command_that_is_killed_outright(tmp_path):
    log = str(tmp_path / "log")
    code = (
        "import sys, time; from pathlib import Path; from deployments.servers.services import Service;"
        f"s = Service('s', [sys.executable, '-c', 'import time; time.sleep(600)'], {{}}, Path({log!r}));"
        "print(s.process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not is_alive(child), "the end of the service")


def test_a_taken_port_is_told_with_the_option_to_change_it():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"Port {port} .* is in use.*--mlflow-port {port + 1}"):
            require_free_port(port, "MLflow server", "--mlflow-port")
    require_free_port(port, "MLflow server", "--mlflow-port")


def test_answers_tells_a_working_server_from_a_closed_port():
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert answers(f"http://127.0.0.1:{server.server_port}/")
    assert not answers(f"http://127.0.0.1:{free_port()}/")


def test_a_run_whose_prefect_server_was_killed_is_told_to_type_the_same_command(tmp_path):
    log = tmp_path / "logs" / "prefect-server.log"
    service = Service("The Prefect server", [sys.executable, "-c", "import time; time.sleep(600)"], {}, log)
    server = PrefectServer("http://127.0.0.1:9/api", service)
    lost = ConnectionError("All connection attempts failed")
    server.require_running(lost)  # it runs: nothing is said
    service.process.kill()
    service.process.wait()
    with pytest.raises(ServiceError, match=r"killed by signal 9.*the same command continues") as caught:
        server.require_running(lost)
    assert caught.value.__cause__ is lost
    service.stop()
