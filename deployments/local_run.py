"""Runs from a terminal, with a Prefect server that lives as long as the run.

Prefect can start such a server itself, but only when the flow is called. Prefect also imports the server into the
calling process. Here the server starts first, as a child process, while this process imports the flow's libraries. A
server that ends during the run is started again, and the run waits for it.

Earlier, runs used the servers of a running `sdlora up`. When those were stopped, MLflow's client retried for four
minutes at every report of a step and ignored Ctrl-C. A server of the run's own costs only the seconds of its start.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from deployments.environment import PROJECT, environment, prefect_url, quiet_terminal
from deployments.servers.credentials import credentials_of
from deployments.servers.patience import patient_environment, require_reachable, wait_for_prefect
from deployments.servers.running import running_services
from deployments.servers.services import Service, ServiceError, answers, listen_at
from deployments.servers.supervise import Supervisor, SupervisorThread, prefect_command
from sdlora.core.errors import SdloraError
from sdlora.core.printable import escape_controls
from tasks.private import private_folder


@contextmanager
def prefect_server(home: Path, log_name: str) -> Iterator[PrefectServer]:
    """Set the environment of this process, and provide a Prefect server for the length of the block.

    The server is the one that `PREFECT_API_URL` names, else a new one of this run. A new one starts even while
    `sdlora up` runs, so that stopping `sdlora up` does not stop the run. The pages of `sdlora up` show the run all the
    same, because both servers read one database. Import nothing of Prefect or MLflow before the block.
    """
    for name in ("prefect", "mlflow", "logs"):
        private_folder(home / name)
    prepare_environment(home)
    require_reachable("MLFLOW_TRACKING_URI")
    if "PREFECT_API_URL" in os.environ:
        require_reachable("PREFECT_API_URL")
        server = PrefectServer(
            os.environ["PREFECT_API_URL"]
        )  # the user's own server, which must not get our credentials
    else:
        server = PrefectServer.start(home)
        running = running_services(home)
        os.environ.setdefault("SDLORA_PREFECT_PAGES", running["prefect"] if running else "")  # it has no pages itself
    os.environ["PREFECT_API_URL"] = server.api_url
    os.environ.update(patient_environment())
    try:
        _log_to_file(home / "logs" / f"{log_name}.log")
        yield server
    except SdloraError:
        raise
    except Exception as error:
        # Without its server, a run fails at any request, with any of the client's errors.
        server.require_running(error)
        raise
    finally:
        _send_pending_logs()
        server.stop()


def prepare_environment(home: Path) -> None:
    """Set the environment of this process for the state folder `home`."""
    os.environ.update({**environment(home), **quiet_terminal()})
    if running := running_services(home):
        os.environ.setdefault("SDLORA_MLFLOW_PAGES", running["mlflow"])  # for links on the run's page


class PrefectServer:
    """Prefect server, and its process if this process started it."""

    def __init__(self, api_url: str, process: Service | None = None) -> None:
        self.api_url, self.process = api_url, process
        self._supervisor: SupervisorThread | None = None

    @classmethod
    def start(cls, home: Path) -> PrefectServer:
        credentials = credentials_of(home)
        os.environ.update(credentials.for_prefect_clients())
        listener = listen_at(0, "Prefect server", "")
        port = listener.getsockname()[1]
        # Prefect sets the same for a server of one process: no web page, no scheduler.
        short_lived = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
        short_lived |= credentials.for_prefect_server(prefect_url(port))
        log = home / "logs" / "prefect-server.log"
        service = Service("The Prefect server", prefect_command(), short_lived, log, PROJECT, listener)
        return cls(f"{prefect_url(port)}/api", service)

    def wait_ready(self) -> None:
        """Wait until the server answers; from now on, a server that goes away is waited for.

        Raises:
            ServiceError: the server of this run did not start.
        """
        if self.process:
            self.process.wait_ready(f"{self.api_url}/health")
            warn = logging.getLogger(__name__).warning
            supervisor = Supervisor(lambda text: warn("%s", text), lambda: None)
            supervisor.add(self.process, partial(answers, f"{self.api_url}/health"))
            self._supervisor = SupervisorThread(supervisor)
        wait_for_prefect()

    def require_running(self, cause: BaseException) -> None:
        """Raise `ServiceError` if the server of this run has ended."""
        if self.process and self.process.ended:
            raise ServiceError(
                f"The Prefect server of this run {self.process.ending}. Finished work is kept: the same command "
                f"continues. The server's log: {self.process.log}"
            ) from cause

    def stop(self) -> None:
        if self._supervisor:
            self._supervisor.stop()
        if self.process:
            self.process.stop(timeout_seconds=5)


def _send_pending_logs() -> None:
    """Send logs and events that wait for the next batch: after the server's end, they would retry at a closed port."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=5)
    EventsWorker.drain_all(timeout=5)


def _log_to_file(path: Path) -> None:
    """Send the libraries' logs to a file, so that the terminal shows only progress and results."""
    from prefect.logging.configuration import setup_logging

    setup_logging()  # its first call replaces the root handlers, so it comes before ours
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(_PrintableFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # no traceback for a log line that a full disk refuses


class _PrintableFormatter(logging.Formatter):
    """Formatter of lines that are safe to read in a terminal: foreign text in a message is escaped."""

    def format(self, record: logging.LogRecord) -> str:
        return escape_controls(super().format(record))
