"""Lock of `sdlora up` on a state folder, and the record of its servers' addresses.

A record without a lock is not enough: the file outlives a killed command, and its ports may then belong to another
folder or user. So the command holds a lock, which the kernel frees when the process ends. The record names the servers'
processes, and only these processes are accepted as listeners.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import psutil

from deployments.servers.credentials import FILE as CREDENTIALS_FILE
from deployments.servers.credentials import Credentials
from deployments.servers.services import Service, listens, refuses
from sdlora.core.errors import ConfigError
from sdlora.core.files import make_private_folder
from tasks.private import private_file

SERVICES_FILE = "services.json"
LOCK_FILE = "up.lock"
WATCHER_LOCK_FILE = "watcher.lock"
_PROBE_SECONDS = 2.0  # a command that probes the lock holds it for a moment


@contextmanager
def stack_lock(home: Path) -> Iterator[None]:
    """Hold the lock of `sdlora up` on the state folder for the length of the block.

    Raises:
        ConfigError: another `sdlora up` holds it.
    """
    make_private_folder(home)
    with os.fdopen(private_file(home / LOCK_FILE), "r+") as file:
        deadline = time.monotonic() + _PROBE_SECONDS
        while not _locked(file, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                running = running_services(home)
                where = f": {running['prefect']}" if running else ", or are starting or stopping just now."
                raise ConfigError(f"The servers of {home} are running already{where}")
            time.sleep(0.1)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            (home / SERVICES_FILE).unlink(missing_ok=True)


@contextmanager
def watcher_lock(home: Path, stopping: threading.Event) -> Iterator[None]:
    """Hold the lock by which others see that the watcher works; wait while an earlier watcher still ends.

    Args:
        stopping: ends the wait; the block then works without the lock.
    """
    with os.fdopen(private_file(home / WATCHER_LOCK_FILE), "r+") as file:
        while not _locked(file, fcntl.LOCK_EX) and not stopping.wait(0.2):
            pass
        yield


def watcher_works(home: Path) -> bool:
    """Return True while a watcher of the state folder works; False while it starts, and after its end."""
    return _is_held(home / WATCHER_LOCK_FILE)


def record_services(home: Path, servers: Mapping[str, tuple[str | None, Service]]) -> None:
    """Write the addresses and processes of the servers for other commands; a worker has no address."""
    records = {
        name: {"url": url, "pid": service.process.pid, "created": _start_time(service.process.pid)}
        for name, (url, service) in servers.items()
    }
    with tempfile.NamedTemporaryFile("w", dir=home, prefix=f".{SERVICES_FILE}-", delete=False) as file:
        json.dump(records, file)
    Path(file.name).rename(home / SERVICES_FILE)  # atomic: a reader finds the whole file or none


def _start_time(pid: int) -> float | None:
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:  # it has just ended, and is started again
        return None


def running_services(home: Path) -> dict[str, str] | None:
    """Return the addresses of the servers of `home` by name; None unless its own `sdlora up` runs them."""
    if not stack_lives(home):
        return None
    try:
        records = json.loads((home / SERVICES_FILE).read_text())
        servers = {name: record for name, record in records.items() if record["url"] is not None}
        if not all(map(_is_recorded_process, servers.values())):
            return None
        return {name: record["url"] for name, record in servers.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # missing or damaged
        return None


def stack_process(home: Path) -> int | None:
    """Return the process of the `sdlora up` that holds the folder's lock; None if none does."""
    if not stack_lives(home):
        return None
    try:
        return int((home / LOCK_FILE).read_text())
    except (OSError, ValueError):  # it has just taken the lock
        return None


def service_records(home: Path) -> dict[str, dict[str, Any]]:
    """Return url, pid and is_alive of each service by name; empty if there is no record yet."""
    try:
        records = json.loads((home / SERVICES_FILE).read_text())
        return {
            name: {"url": record["url"], "pid": record["pid"], "is_alive": _is_recorded_process(record)}
            for name, record in records.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def worker_since(home: Path) -> datetime | None:
    """Return the start of the worker; None while none is recorded or it has just ended."""
    try:
        pid = service_records(home)["worker"]["pid"]
        return datetime.fromtimestamp(psutil.Process(pid).create_time(), UTC)
    except (KeyError, psutil.NoSuchProcess):
        return None


def require_current(prefect: str, credentials: Credentials) -> None:
    """Raise `ConfigError` if a running Prefect server of the folder was started with another password."""
    basic = base64.b64encode(credentials.login.encode()).decode()
    if refuses(f"{prefect}/api/admin/version", {"Authorization": f"Basic {basic}"}):
        raise ConfigError(
            f"The running servers were started with another password than {CREDENTIALS_FILE} has now: the file was "
            "deleted or replaced meanwhile. Stop `sdlora up` and start it again."
        )


def stack_lives(home: Path) -> bool:
    """Return True while a `sdlora up` works on the state folder."""
    return _is_held(home / LOCK_FILE)


def _is_recorded_process(record: Mapping[str, object]) -> bool:
    """Return True if the recorded process still runs, with the same start time, and listens at the address."""
    pid, port = record["pid"], str(record["url"]).rpartition(":")[2]
    if not isinstance(pid, int):
        return False
    try:
        process = psutil.Process(pid)
        is_same = process.create_time() == record["created"]
        return is_same and (record["url"] is None or listens(process, int(port)))
    except psutil.Error:
        return False


def _is_held(path: Path) -> bool:
    try:
        with path.open() as file:
            return not _locked(file, fcntl.LOCK_SH)
    except OSError:
        return False


def _locked(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
