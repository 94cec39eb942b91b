"""State of the servers of a state folder: processes, addresses, runs, disk; without the libraries of the servers."""

from __future__ import annotations

import base64
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deployments.servers.credentials import credentials_of
from deployments.servers.running import service_records, stack_process, watcher_works
from deployments.servers.services import answers, open_directly
from deployments.servers.supervise import HEALTH

State = Literal["running", "starting", "down"]
LOGS = {
    "prefect": "prefect-server.log",
    "mlflow": "mlflow-server.log",
    "worker": "worker.log",
    "watcher": "watcher.log",
}
_ACTIVE = ("RUNNING", "PENDING", "CANCELLING", "PAUSED")


@dataclass(frozen=True)
class ServiceState:
    """Server, worker or watcher of `sdlora up`. `url` is None for the last two."""

    name: str
    state: State
    url: str | None
    pid: int | None
    log: Path


@dataclass(frozen=True)
class RunState:
    """Flow run that Prefect shows as unfinished."""

    id: str
    name: str
    state: str
    since: str | None
    url: str


@dataclass(frozen=True)
class StackState:
    """State of everything that `sdlora up` started, and of the disk.

    Attributes:
        pid: process of `sdlora up`; None if it does not run.
        runs: unfinished runs; None if Prefect does not answer.
        free_bytes: free space on the disk of the state folder.
    """

    pid: int | None
    services: tuple[ServiceState, ...]
    runs: tuple[RunState, ...] | None
    free_bytes: int
    total_bytes: int

    @property
    def is_good(self) -> bool:
        return self.pid is not None and all(service.state == "running" for service in self.services)


def stack_state(home: Path) -> StackState:
    """Ask the servers of `home`; takes seconds at most, also if a server hangs."""
    pid = stack_process(home)
    records = service_records(home) if pid is not None else {}
    services = tuple(_service_state(home, name, records.get(name), pid is not None) for name in LOGS)
    prefect = next((each.url for each in services if each.name == "prefect" and each.state == "running"), None)
    disk = shutil.disk_usage(home)
    return StackState(pid, services, unfinished_runs(home, prefect) if prefect else None, disk.free, disk.total)


def _service_state(home: Path, name: str, record: Mapping[str, Any] | None, is_up: bool) -> ServiceState:
    log = home / "logs" / LOGS[name]
    if record is None:
        return ServiceState(name, "starting" if is_up else "down", None, None, log)
    url = record["url"]
    is_running = record["is_alive"] and (url is None or answers(url + HEALTH[name]))
    state: State = "running" if is_running else "down"
    if name == "watcher" and is_running and not watcher_works(home):
        state = "starting"
    return ServiceState(name, state, url, record["pid"], log)


def unfinished_runs(home: Path, prefect: str) -> tuple[RunState, ...] | None:
    """Return the unfinished runs that the Prefect server at this address knows; None if it does not answer."""
    query = {"flow_runs": {"state": {"type": {"any_": _ACTIVE}}}, "sort": "START_TIME_ASC"}
    found = ask_prefect(home, prefect, "flow_runs/filter", query)
    if not isinstance(found, list):
        return None
    return tuple(
        RunState(
            str(run["id"]),
            str(run["name"]),
            str(run["state"]["name"]),
            run.get("start_time") or run["state"].get("timestamp"),
            f"{prefect}/runs/flow-run/{run['id']}",
        )
        for run in found
    )


def ask_prefect(home: Path, prefect: str, path: str, query: Mapping[str, object]) -> Any:
    """Post a query to Prefect's REST interface as the owner; return None if the server does not answer."""
    login = base64.b64encode(credentials_of(home).login.encode()).decode()
    request = urllib.request.Request(  # noqa: S310  # our own server's address
        f"{prefect}/api/{path}",
        json.dumps(query).encode(),
        {"Content-Type": "application/json", "Authorization": f"Basic {login}"},
    )
    try:
        with open_directly(request, timeout_seconds=10) as reply:
            return json.load(reply)
    except (OSError, ValueError):  # HTTPError is an OSError
        return None
