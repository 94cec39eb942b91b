"""The Prefect servers of `sdlora up` and `sdlora run` answer their owner alone."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import stat
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from deployments.local_run import PrefectServer
from tests.stack import PROJECT, RunningStack, clean_environment, request
from tests.waiting import PATIENCE_SECONDS, wait_until

PUBLIC = {"/health", "/ready"}  # as an operator's probes ask them
ELSEWHERE = "http://127.0.0.1:9"
SOCKETS = (
    "events/in",
    "events/out",
    "logs/out",
    "task_runs/subscriptions/scheduled",
    "work_pools/local/workers/connect",
)


def calls(server: str) -> list[tuple[str, str]]:
    """Every method and path of the server, with something in the places that a path leaves open."""
    _, described = request(f"{server}/openapi.json")  # the description of Prefect itself, the same everywhere
    paths = json.loads(described)["paths"]
    some_id = "7b1d3f5e-0000-4000-8000-000000000000"
    return [
        (method.upper(), re.sub(r"\{[^}]*\}", some_id, path))
        for path, methods in paths.items()
        for method in methods
        if path not in PUBLIC
    ]


def basic(login: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}


def refusals(server: str, headers: dict[str, str], data: bytes | None = None) -> dict[int, int]:
    """How many of all calls got which answer."""
    counts: dict[int, int] = {}
    for method, path in calls(server):
        body = data if method in {"POST", "PUT", "PATCH"} else None
        status, _ = request(f"{server}/api{path}", headers, body, method)
        counts[status] = counts.get(status, 0) + 1
    return counts


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("sdlora:wrong"),
        basic("sdlora:"),
        {"Authorization": "Bearer sdlora"},
        {"Origin": ELSEWHERE, "Content-Type": "text/plain"},
        {"Host": "rebound.example", "Content-Type": "text/plain"},
    ],
    ids=str,
)
def test_no_call_is_answered_without_the_password(running_stack: RunningStack, headers):
    counts = refusals(running_stack.prefect, headers, b"{}")
    assert counts.keys() == {401}
    assert counts[401] > 100


def test_the_owner_is_answered_and_probes_are(running_stack: RunningStack):
    assert running_stack.api("deployments/filter", {})
    for path in PUBLIC:
        assert request(f"{running_stack.prefect}/api{path}")[0] == 200


def test_a_browser_may_not_ask_for_a_page_of_another_origin(running_stack: RunningStack):
    wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    url = f"{running_stack.prefect}/api/flow_runs/filter"
    for origin, status in ((ELSEWHERE, 400), ("null", 400), (running_stack.prefect, 200)):
        assert request(url, {**wanted, "Origin": origin}, method="OPTIONS")[0] == status


async def _greeting(server: str, path: str, token: str | None) -> str:
    address = server.replace("http", "ws", 1)
    try:
        protocols = ["prefect"] if token else None
        async with connect(f"{address}/api/{path}", subprotocols=protocols, open_timeout=PATIENCE_SECONDS) as socket:
            await socket.send(json.dumps({"type": "auth", "token": token}))
            return json.loads(await socket.recv())["type"]
    except (ConnectionClosed, InvalidStatus):
        return "refused"


@pytest.mark.parametrize("path", SOCKETS)
def test_no_socket_is_opened_without_the_password(running_stack: RunningStack, path):
    login = running_stack.credentials.login
    told = {None: "refused", "sdlora:wrong": "refused", login: "auth_success"}
    assert {token: asyncio.run(_greeting(running_stack.prefect, path, token)) for token in told} == told


def test_prefects_own_command_works_with_the_variables_set(running_stack: RunningStack):
    command = [sys.executable, "-m", "prefect", "work-pool", "ls"]
    for environment, code in (
        (running_stack.environment(), 0),
        (running_stack.environment() | {"PREFECT_API_AUTH_STRING": "sdlora:wrong"}, 1),
    ):
        done = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr


def test_the_servers_listen_on_loopback_only(running_stack: RunningStack):
    children = psutil.Process(running_stack.process.pid).children(recursive=True)
    ports = {int(url.rpartition(":")[2]) for url in (running_stack.prefect, running_stack.mlflow)}
    listening = set()
    for child in children:
        with suppress(psutil.NoSuchProcess):  # a run may end just now
            found = child.net_connections("inet")
            listening |= {tuple(one.laddr) for one in found if one.status == psutil.CONN_LISTEN}
    assert ports <= {port for _, port in listening}  # the worker listens, too: to its runs, by a token for each
    assert {host for host, _ in listening} == {"127.0.0.1"}


def test_the_page_sends_the_password_to_its_own_server(running_stack: RunningStack):
    _, told = request(f"{running_stack.prefect}/ui-settings")
    assert json.loads(told)["api_url"] == f"{running_stack.prefect}/api"


def test_the_worker_is_online_and_hears_its_server_on_a_socket(running_stack: RunningStack):
    def is_online() -> bool:
        (worker,) = running_stack.api("work_pools/local/workers/filter", {})
        return worker["status"] == "ONLINE"

    wait_until(is_online, "a sign of life of the worker")
    log = (running_stack.home / "logs" / "worker.log").read_text()
    assert "403" not in log
    assert "Unauthorized" not in log


def test_the_server_of_a_run_from_a_terminal_answers_its_owner_alone(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "somebody:else")  # put back after the test
    server = PrefectServer.start(tmp_path)
    try:
        server.wait_ready()
        address = server.api_url.removesuffix("/api")
        assert refusals(address, {"Origin": ELSEWHERE, "Content-Type": "text/plain"}, b"{}").keys() == {401}
        assert asyncio.run(_greeting(address, "events/in", None)) == "refused"
        mine = basic(os.environ["PREFECT_API_AUTH_STRING"])
        assert request(f"{server.api_url}/flows/count", mine | {"Content-Type": "application/json"}, b"{}")[0] == 200
    finally:
        server.stop()


def test_a_server_that_the_user_names_is_not_sent_our_password(tmp_path, monkeypatch):
    from deployments.local_run import prefect_server
    from deployments.servers.credentials import credentials_of

    class Theirs(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            received.append(str(self.headers))
            self.send_error(404)

        def log_message(self, *arguments: object) -> None:
            pass

    received: list[str] = []
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.environ.pop("PREFECT_API_AUTH_STRING", None)
    (tmp_path / "mlflow").mkdir(mode=0o755)  # made by a person
    with ExitStack() as stack:
        theirs = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Theirs))
        threading.Thread(target=theirs.serve_forever, daemon=True).start()
        stack.callback(theirs.shutdown)
        os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{theirs.server_port}/api"
        server = stack.enter_context(prefect_server(tmp_path, "test"))
        assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("prefect", "mlflow", "logs")} == {0o700}
        assert server.process is None
        assert "PREFECT_API_AUTH_STRING" not in os.environ
    assert credentials_of(tmp_path).login not in str(os.environ)
    assert received and not any("Authorization" in headers for headers in received)


def test_login_tells_that_the_running_servers_have_another_password(running_stack: RunningStack):
    command = [sys.executable, "-m", "deployments.cli", "login", "--home", str(running_stack.home)]
    kept = running_stack.home / "credentials.json"
    aside = kept.rename(kept.with_suffix(".aside"))
    try:
        done = subprocess.run(command, env=clean_environment(), cwd=PROJECT, capture_output=True, text=True)
    finally:
        aside.rename(kept)
    assert done.returncode == 1
    assert "started with another password" in done.stderr
    assert "Stop `sdlora up` and start it again" in done.stderr
    done = subprocess.run(command, env=clean_environment(), cwd=PROJECT, capture_output=True, text=True)
    assert running_stack.credentials.login in done.stdout
