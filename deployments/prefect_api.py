"""The few calls to a Prefect server that `sdlora up` needs, over plain HTTP: importing its client takes seconds."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import Any

from deployments.services import ServiceError
from tasks.lock import is_training

_BUSY_SECONDS = 60.0
"""A server that has just started answers 503 while its own services hold its database."""


class PrefectApi:
    """A Prefect server on this machine."""

    def __init__(self, url: str, login: str = "") -> None:
        self.url, self.login = url, login

    def crash_orphans(self, home: Path) -> list[str]:
        """Mark runs as crashed that the database calls running although no process works on them.

        Called when the server has just started: whatever ran under an earlier one has ended with it, except a
        `sdlora run` from another terminal, which holds the training lock. An orphan would keep its concurrency
        slot, and no later run could start.

        Returns:
            The names of the runs.
        """
        if is_training(home):
            return []
        states = {"any_": ["RUNNING", "PENDING", "CANCELLING"]}
        orphans = self._post("flow_runs/filter", {"flow_runs": {"state": {"type": states}}})
        for run in orphans:
            crashed = {"type": "CRASHED", "message": "Its process ended without a word; found when the server started."}
            self._post(f"flow_runs/{run['id']}/set_state", {"state": crashed, "force": True})
        return [run["name"] for run in orphans]

    def ensure_process_pool(self, name: str) -> None:
        """Create a work pool whose runs are processes on this machine."""
        try:
            self._get(f"work_pools/{name}")
        except ServiceError:
            template = self._get("collections/views/aggregate-worker-metadata")["prefect"]["process"]
            configuration = template["default_base_job_configuration"]
            self._post("work_pools/", {"name": name, "type": "process", "base_job_template": configuration})

    def set_parameters(self, deployment: str, parameters: dict[str, Any]) -> None:
        """Replace the default parameters of `flow/deployment`."""
        found = self._get(f"deployments/name/{deployment}")
        self._send("PATCH", f"deployments/{found['id']}", {"parameters": parameters})

    def _get(self, path: str) -> Any:
        return self._send("GET", path, None)

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._send("POST", path, body)

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        patient_until = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                return self._send_once(method, path, body)
            except _BusyError:
                if time.monotonic() > patient_until:
                    raise
                time.sleep(0.5)

    def _send_once(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        if self.login:
            headers["Authorization"] = f"Basic {base64.b64encode(self.login.encode()).decode()}"
        request = urllib.request.Request(f"{self.url}/api/{path}", data, headers, method=method)  # noqa: S310  # loopback
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310
                content = reply.read()
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")[:500]
            kind = _BusyError if error.code == HTTPStatus.SERVICE_UNAVAILABLE else ServiceError
            raise kind(f"The Prefect server refused {method} {path}: {error.code} {said}") from error
        except OSError as error:
            raise ServiceError(f"The Prefect server at {self.url} cannot be reached: {error}") from error
        return json.loads(content) if content else None


class _BusyError(ServiceError):
    """What was refused may be taken in a moment."""
