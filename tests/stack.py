"""One `sdlora up` for all tests of a session: the servers, the worker and the deployments, as a person has them."""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from deployments.servers.credentials import Credentials, credentials_of
from tests.tiny import draw_images

STYLE_FILE: dict[str, Any] = {
    "name": "mine",
    "data": {"sources": ["images"], "held_out_fraction": 0.4},
    "training": {"steps": 4},
    "evaluation": {"max_prompts": 8, "steps": 2, "denoising_steps": 2, "resamples": 100, "fid_resamples": 100},
}
PROJECT = Path(__file__).parents[1]
# What a user may have set, for other servers or for good reasons, and what would open ours: nothing may come of it.
CARELESS = {
    "http_proxy": "http://127.0.0.1:9",
    "all_proxy": "http://127.0.0.1:9",
    "FORCE_COLOR": "1",  # makes rich take a pipe for a terminal
    "PREFECT_SERVER_API_HOST": "0.0.0.0",
    "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": "*",
    "PREFECT_SERVER_UI_API_URL": "http://127.0.0.1:9/api",
    "MLFLOW_HOST": "0.0.0.0",
    "MLFLOW_GUNICORN_OPTS": "-b 0.0.0.0:0",
    "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true",
    "MLFLOW_SERVER_ALLOWED_HOSTS": "*",
    "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "*",
    "MLFLOW_SERVER_X_FRAME_OPTIONS": "NONE",
}
DEVICE = "cpu"
"""The only slot of `running_stack`, also where there is a GPU."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
PATIENCE_SECONDS = 900.0
"""Longest wait for anything that needs processor time: a busy machine may be ten times slower than an idle one."""
_ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass
class RunningStack:
    """A running `sdlora up`.

    `prefect` and `mlflow` are the addresses of its servers, `credentials` what they ask for, `said` its output so far.
    """

    process: subprocess.Popen[str]
    home: Path
    config: Path
    prefect: str
    mlflow: str
    credentials: Credentials
    lines: list[str] = field(default_factory=list)
    reader: threading.Thread | None = None

    @property
    def said(self) -> str:
        return _COLOUR.sub("", "".join(self.lines))

    @property
    def basic(self) -> str:
        """The header `Authorization` of the owner."""
        return "Basic " + base64.b64encode(self.credentials.login.encode()).decode()

    def environment(self) -> dict[str, str]:
        """Variables of a Prefect or MLflow client that may use the servers."""
        return clean_environment() | {
            "PREFECT_API_URL": f"{self.prefect}/api",
            "PREFECT_API_AUTH_STRING": self.credentials.login,
            "MLFLOW_TRACKING_URI": self.mlflow,
            "MLFLOW_TRACKING_USERNAME": self.credentials.user,
            "MLFLOW_TRACKING_PASSWORD": self.credentials.password,
        }

    def api(self, path: str, body: object = None, method: str | None = None) -> Any:
        """Call Prefect's REST interface as the owner; `path` without /api/."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Authorization": self.basic}
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            status, content = request(f"{self.prefect}/api/{path}", headers, data, method, 300)
            # 503 is Prefect's answer to a busy SQLite file, which its own clients repeat.
            if status != 503 or time.monotonic() > deadline:
                break
            time.sleep(1)
        assert status < 400, (path, status, content)
        return json.loads(content) if content else None

    def deployment(self, style: str) -> str:
        """Return the id of a style's deployment; that of any style is named retrain."""
        return str(self.api(f"deployments/name/retrain/{style}")["id"])

    def start_run(self, deployment: str, **parameters: Any) -> str:
        """Start a flow run of a deployment as the page's button does; returns its id."""
        # With a key, a call that is repeated because of a busy server makes no second run.
        asked = {"parameters": parameters, "idempotency_key": str(uuid4())}
        return str(self.api(f"deployments/{deployment}/create_flow_run", asked)["id"])

    def finished(self, flow_run_id: str, patience_seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """Wait for a flow run to end; returns its last state."""
        deadline = time.monotonic() + patience_seconds
        while True:
            state = self.api(f"flow_runs/{flow_run_id}")["state"]
            if state["type"] in _ENDED:
                return state
            assert time.monotonic() < deadline, state
            time.sleep(0.5)

    def completed(self, flow_run_id: str) -> dict[str, Any]:
        """Wait for a flow run, which has to complete; returns its last state."""
        state = self.finished(flow_run_id)
        assert state["type"] == "COMPLETED", state
        return state

    def wait_for(self, text: str, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Return when the terminal has shown `text`."""
        deadline = time.monotonic() + patience_seconds
        while text not in self.said:
            if self.process.poll() is not None:
                if self.reader is not None:
                    self.reader.join(60)  # its last lines may still be in the pipe
                assert text in self.said, f"it ended without saying {text!r}:\n{self.said}"
            assert time.monotonic() < deadline, f"it did not say {text!r}:\n{self.said}"
            time.sleep(0.1)

    def stop(self) -> None:
        """End `sdlora up` as SIGTERM does, and kill it if it does not end."""
        self.process.terminate()
        try:
            self.process.wait(300)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


class _OnePiece(http.client.HTTPConnection):
    """Connection that sends head and body together.

    A server that refuses without the body closes at once. A body that comes later resets the connection, perhaps before
    the answer is read.
    """

    def endheaders(self, message_body: Any = None, **options: Any) -> None:
        self.connect()
        parts: list[bytes] = []
        self.send = parts.append  # type: ignore[method-assign]
        super().endheaders(message_body, **options)
        self.sock.sendall(b"".join(parts))


class _OnePieceHandler(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_OnePiece, request)


def request(
    url: str,
    headers: Mapping[str, str] | None = None,
    data: bytes | None = None,
    method: str | None = None,
    timeout_seconds: float = 60,
) -> tuple[int, str]:
    """The status and the text of an answer, also of a refusal."""
    asked = urllib.request.Request(url, data, dict(headers or {}), method=method)
    try:
        with urllib.request.build_opener(_OnePieceHandler).open(asked, timeout=timeout_seconds) as reply:
            return reply.status, reply.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def clean_environment() -> dict[str, str]:
    """The environment of a person who has set nothing; not this process's Prefect and MLflow."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}


def start_stack(home: Path, config: Path, variables: Mapping[str, str] | None = None) -> RunningStack:
    """Start `sdlora up` on free ports and follow what it says; returns at once."""
    prefect, mlflow = free_ports(2)
    command = [sys.executable, "-m", "deployments.cli", "up", "--home", str(home), "--config", str(config)]
    command += ["--prefect-port", str(prefect), "--mlflow-port", str(mlflow)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=PROJECT,
        umask=0,  # the most generous a person can be
        env=clean_environment() | {"COLUMNS": "200", **(variables or {})},
    )
    stack = RunningStack(
        process,
        home,
        config,
        f"http://127.0.0.1:{prefect}",
        f"http://127.0.0.1:{mlflow}",
        credentials_of(home),
    )
    stack.reader = threading.Thread(target=_follow, args=(process, stack.lines), daemon=True)
    stack.reader.start()
    return stack


def free_ports(count: int) -> list[int]:
    """Return ports on 127.0.0.1 that are free now, and that no connection of another process is given meanwhile.

    They lie below those that Linux gives to clients, and all are held until the last is found.
    """
    with ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            port = random.SystemRandom().randrange(20_000, 32_000)
            probe = held.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
        return ports


def _follow(process: subprocess.Popen[str], lines: list[str]) -> None:
    assert process.stdout is not None
    lines.extend(process.stdout)


@pytest.fixture(scope="session")
def running_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """`sdlora up` for a style on the embedded base with most settings left empty, started once for the session.

    It is started where variables are set that would open its servers.
    It gives the process, its state folder `home`, its configuration file, the addresses of both servers, the
    credentials, and calls to Prefect's REST interface as the owner. A test that stops or breaks servers starts a stack
    of its own with `start_stack`.
    """
    folder = tmp_path_factory.mktemp("up")
    draw_images(folder / "images", 24, seed=5)
    config = folder / "mine.yaml"
    config.write_text(yaml.safe_dump(STYLE_FILE))
    stack = start_stack(folder / "home", config, CARELESS | {"SDLORA_DEVICES": DEVICE})
    try:
        stack.wait_for("Stop everything")
        yield stack
    finally:
        stack.stop()
