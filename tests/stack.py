"""One `sdlora up` for all tests of a session: the servers, the worker and the deployments, as a person has them."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.servers.credentials import Credentials, credentials_of
from deployments.servers.services import free_port
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
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
START_SECONDS = 300


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
        for _ in range(5):
            status, content = request(f"{self.prefect}/api/{path}", headers, data, method)
            if status != 503:  # Prefect's answer to a busy SQLite file, which its own clients repeat
                break
            time.sleep(2)
        assert status < 400, (path, status, content)
        return json.loads(content) if content else None

    def finished(self, flow_run_id: str, patience_seconds: float = 300) -> dict[str, Any]:
        """Wait for a flow run to end; returns its last state."""
        deadline = time.monotonic() + patience_seconds
        while True:
            state = self.api(f"flow_runs/{flow_run_id}")["state"]
            if state["type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}:
                return state
            assert time.monotonic() < deadline, state
            time.sleep(1)

    def wait_for(self, text: str, patience_seconds: float = START_SECONDS) -> None:
        """Return when the terminal has shown `text`."""
        deadline = time.monotonic() + patience_seconds
        while text not in self.said:
            assert self.process.poll() is None, f"it ended without saying {text!r}:\n{self.said}"
            assert time.monotonic() < deadline, f"it did not say {text!r}:\n{self.said}"
            time.sleep(0.1)


def request(
    url: str, headers: Mapping[str, str] | None = None, data: bytes | None = None, method: str | None = None
) -> tuple[int, str]:
    """The status and the text of an answer, also of a refusal."""
    asked = urllib.request.Request(url, data, dict(headers or {}), method=method)
    try:
        with urllib.request.urlopen(asked, timeout=60) as reply:
            return reply.status, reply.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def clean_environment() -> dict[str, str]:
    """The environment of a person who has set nothing; not this process's Prefect and MLflow."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}


def start_stack(home: Path, config: Path, variables: Mapping[str, str] | None = None) -> RunningStack:
    """Start `sdlora up` on free ports and follow what it says; returns at once."""
    prefect, mlflow = free_port(), free_port()
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
    threading.Thread(target=_follow, args=(process, stack.lines), daemon=True).start()
    return stack


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
    stack = start_stack(folder / "home", config, CARELESS)
    try:
        stack.wait_for("Stop everything")
        yield stack
    finally:
        stack.process.terminate()
        stack.process.wait(60)
