"""Local servers as child processes: start, wait until ready, stop with all descendants."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from http.client import HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import psutil

from sdlora.core.errors import ConfigError, SdloraError
from tasks.private import private_folder

STOP_SECONDS = 15.0
_BACKLOG = 2048  # as uvicorn
LOG_BYTES = 10 * 2**20
"""Size from which a log is moved to `<name>.1` when its server starts."""
# Past every proxy: one that the environment names could answer in a local server's name, or fail to reach it.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ServiceError(SdloraError):
    """Failure of a local server to start or to keep running."""


class Service:
    """Server in a process group of its own, with its output in a log file.

    Args:
        listener: socket that the server gets as its standard input. This process keeps the socket, so no other user can
            take the port of a server that has ended, and requests wait until the server runs again.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        environment: Mapping[str, str],
        log: Path,
        folder: Path | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        # Logs hold requests, and errors with their inputs, so only the owner may read them.
        private_folder(log.parent)
        self.name, self.log = name, log
        self._command, self._environment, self._folder = command, {**os.environ, **environment}, folder
        self._listener = listener
        self.file: BinaryIO = open_log(log)
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            env=self._environment,
            cwd=self._folder,
            stdin=subprocess.DEVNULL if self._listener is None else self._listener.fileno(),
            stdout=self.file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  # one call into libc
        )

    def restart(self) -> None:
        """Start the process again after its end; what is left of it is stopped first.

        On Linux the process ends with the thread that called this, so the thread has to live as long as the service.
        """
        self.stop(timeout_seconds=STOP_SECONDS / 3)
        self.file = open_log(self.log)
        self.process = self._start()

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def ending(self) -> str:
        """How the process ended, in words."""
        code = self.process.returncode
        return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"

    def wait_ready(self, url: str, timeout_seconds: float = 180) -> None:
        """Wait until `url` answers, by this process or a descendant.

        Every user of a machine can listen at its ports. Another process that answers would get the password next.

        Raises:
            ServiceError: the process ended, or did not answer within `timeout_seconds`.
        """
        port = urlsplit(url).port
        assert port is not None, url
        deadline = time.monotonic() + timeout_seconds
        while not (self.listens(port) and answers(url)):
            self.check()
            if time.monotonic() > deadline:
                raise ServiceError(f"{self.name} did not answer within {timeout_seconds:.0f} s. Its log: {self.log}")
            time.sleep(0.2)

    def listens(self, port: int) -> bool:
        try:
            return listens(psutil.Process(self.process.pid), port)
        except psutil.NoSuchProcess:
            return False

    def check(self) -> None:
        """Raise `ServiceError` with the end of the log if the process has ended."""
        if self.ended:
            lines = self.log.read_text(errors="replace").splitlines()[-8:]
            tail = "\n".join(f"  {line}" for line in lines)
            raise ServiceError(f"{self.name} ended with code {self.process.returncode}. Its log: {self.log}\n{tail}")

    def stop(self, timeout_seconds: float = STOP_SECONDS) -> None:
        """Terminate the process group, terminate it again, kill it; then do the same with surviving descendants."""
        descendants = self.descendants()
        for signal_number, patience in (
            (signal.SIGTERM, timeout_seconds),
            # A Prefect worker whose server is stopping ignores the first signal.
            (signal.SIGTERM, timeout_seconds / 3),
            (signal.SIGKILL, timeout_seconds / 3),
        ):
            if not self._signal_group(signal_number):
                break
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline and self._signal_group(0):
                self.process.poll()  # reap the process: as a zombie it would keep the group alive
                time.sleep(0.05)
        self.process.wait()
        _end(descendants, timeout_seconds)
        self.file.close()

    def descendants(self) -> list[psutil.Process]:
        """List all descendants: a worker starts its flow runs in process groups of their own."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def _signal_group(self, number: int) -> bool:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return False
        return True


def open_log(path: Path) -> BinaryIO:
    """Open a log to append to; a large one is moved to `<name>.1` first."""
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    return path.open("ab")


def open_directly(request: urllib.request.Request, timeout_seconds: float) -> HTTPResponse:
    """Send a request to a local server, past every proxy.

    Raises:
        OSError: the server does not answer, or refuses.
    """
    reply: HTTPResponse = _direct.open(request, timeout=timeout_seconds)
    return reply


def answers(url: str) -> bool:
    """Return True if a GET of `url` succeeds within 2 s."""
    try:
        with _direct.open(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def refuses(url: str, headers: Mapping[str, str]) -> bool:
    """Return True if a server refuses these headers with 401 or 403."""
    try:
        _direct.open(urllib.request.Request(url, headers=dict(headers)), timeout=5).close()  # noqa: S310  # ours
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)
    except OSError:
        return False
    return False


def listens(process: psutil.Process, port: int) -> bool:
    """Return True if the process or a descendant listens at the port on 127.0.0.1."""
    for member in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            for connection in member.net_connections("tcp4"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr == ("127.0.0.1", port):
                    return True
    return False


def require_free_port(port: int, server: str, option: str) -> None:
    """Raise `ConfigError` if the port on 127.0.0.1 is in use."""
    listen_at(port, server, option).close()


def listen_at(port: int, server: str, option: str) -> socket.socket:
    """Return a socket that listens at the port on 127.0.0.1, for `Service`.

    Raises:
        ConfigError: the port is in use.
    """
    try:
        return socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)  # reuses the address after a stop
    except OSError as error:
        raise ConfigError(
            f"Port {port} for the {server} is in use. Stop what uses it, or choose another: {option} {port + 1}"
        ) from error


def free_port() -> int:
    """Return a port on 127.0.0.1 that is free at this moment."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(processes: list[psutil.Process], timeout_seconds: float) -> None:
    """Wait for processes that got a signal already, terminate them, kill them."""
    _, processes = psutil.wait_procs(processes, timeout_seconds)
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                end(process)
        _, processes = psutil.wait_procs(processes, timeout_seconds)


def _end_with_parent() -> None:
    # PR_SET_PDEATHSIG: Linux terminates the servers when this process is killed.
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, such as the runs of a killed worker; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def adopted_processes(services: Iterable[Service]) -> list[psutil.Process]:
    """Return child processes of this process that are no service, and remove those that have ended."""
    own = {service.process.pid for service in services}
    living = []
    for child in psutil.Process().children():
        if child.pid in own:
            continue
        with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):
            if child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)
            else:
                living.append(child)
    return living


def stop_others(processes: Iterable[psutil.Process]) -> None:
    """Terminate processes that are no services, and their descendants, and kill those that do not end in time."""
    family: set[psutil.Process] = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            family |= {process, *process.children(recursive=True)}
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _end(list(family), STOP_SECONDS)
