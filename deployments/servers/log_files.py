"""Log files of a state folder, and the lines of a run in Prefect."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from deployments.servers.running import running_services
from deployments.servers.status import LOGS, ask_prefect
from sdlora.core.errors import ConfigError

_POLL_SECONDS = 0.5
_PAGE = 200
_TAIL_BYTES = 4 * 2**20
"""Part of a log that is searched for its last lines."""


def log_files(home: Path) -> dict[str, Path]:
    """Return the log files by name: prefect, mlflow, worker, and others by the name of their file."""
    names = {file: name for name, file in LOGS.items()}
    found = sorted((home / "logs").glob("*.log"))
    return {names.get(path.name, path.stem): path for path in found}


def last_lines(path: Path, count: int) -> list[str]:
    """Return the last lines of a file."""
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
        return [line.decode(errors="replace").rstrip("\r\n") for line in deque(file, maxlen=count)]


def follow(path: Path, is_over: Callable[[], bool] = lambda: False) -> Iterator[str]:
    """Yield the lines that a file gets from now on; a file that is replaced or shortened is read from its start."""
    file = path.open("rb")
    file.seek(0, os.SEEK_END)
    rest = b""
    try:
        while True:
            if chunk := file.read():
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace").rstrip("\r") for line in lines)
                continue
            if is_over():
                return
            time.sleep(_POLL_SECONDS)
            if _is_replaced(path, file.fileno(), file.tell()):
                file.close()
                file, rest = path.open("rb"), b""
    finally:
        file.close()


def _is_replaced(path: Path, descriptor: int, position: int) -> bool:
    try:
        now = path.stat()
    except FileNotFoundError:  # between the two steps of a replacement
        return False
    return now.st_ino != os.fstat(descriptor).st_ino or now.st_size < position


class RunLog:
    """Log of a flow run, from the Prefect server of `sdlora up`.

    Raises:
        ConfigError: no server runs, or no run has this name or id.
    """

    def __init__(self, home: Path, run: str) -> None:
        running = running_services(home)
        names = ", ".join(log_files(home)) or "none yet"
        if running is None:
            raise ConfigError(
                f"No log file is named {run!r}. There are: {names}. The lines of a run are on the Prefect server: "
                "start `sdlora up`."
            )
        self._home, self._prefect = home, running["prefect"]
        found = self._find({"name": {"any_": [run]}}) or self._find({"id": {"any_": [run]}})
        if not found:
            raise ConfigError(
                f"No log file and no run is named {run!r}. Log files: {names}. Runs: {self._prefect}/runs, or "
                "`sdlora status`."
            )
        self.id, self._read = str(found[0]["id"]), 0

    def _find(self, condition: dict[str, object]) -> list[dict[str, object]]:
        query = {"flow_runs": condition, "sort": "START_TIME_DESC", "limit": 1}
        return ask_prefect(self._home, self._prefect, "flow_runs/filter", query) or []

    def new_lines(self) -> list[str]:
        """Return the lines since the last call."""
        lines: list[str] = []
        while True:
            query = {
                "logs": {"flow_run_id": {"any_": [self.id]}},
                "sort": "TIMESTAMP_ASC",
                "offset": self._read,
                "limit": _PAGE,
            }
            page = ask_prefect(self._home, self._prefect, "logs/filter", query) or []
            self._read += len(page)
            lines += [f"{line['timestamp'][:19]} {line['message']}" for line in page]
            if len(page) < _PAGE:
                return lines

    def follow(self) -> Iterator[str]:
        """Yield new lines until the run has ended."""
        while True:
            ended = not self._is_unfinished()
            yield from self.new_lines()
            if ended:
                return
            time.sleep(2 * _POLL_SECONDS)

    def _is_unfinished(self) -> bool:
        found = self._find({"id": {"any_": [self.id]}})
        state = found[0].get("state_type") if found else None
        return state not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
