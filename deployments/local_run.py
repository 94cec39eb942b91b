"""Run a flow from a terminal, with a Prefect server that lives as long as the run.

Prefect can start such a server by itself, but only when the flow is called, and it imports the server into this
process as well. Started here as a child process at the very beginning, it comes up while the libraries of the flow
are being imported.

Runs once used the servers of a running `sdlora up`. After those were stopped, MLflow's client retried for four minutes
in every report of a step and ignored Ctrl-C. A server of the run's own costs only the seconds that it takes to start.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deployments.credentials import credentials_of
from deployments.environment import environment, prefect_url, quiet_terminal
from deployments.running import running_services
from deployments.services import Service, free_port
from tasks.private import private_folder


@contextmanager
def prefect_server(home: Path, log_name: str) -> Iterator[PrefectServer]:
    """Set the environment of this process, and have a Prefect server for the length of the block.

    An address in `PREFECT_API_URL` comes first, else one of our own, also while a `sdlora up` runs: what the run
    needs then cannot be stopped under it, and the pages show it all the same, because both read one database.
    Import nothing of Prefect or MLflow before.
    """
    for name in ("prefect", "mlflow", "logs"):
        private_folder(home / name)
    prepare_environment(home)
    if "PREFECT_API_URL" in os.environ:
        server = PrefectServer(os.environ["PREFECT_API_URL"])  # the user's: our credentials are not for it
    else:
        server = PrefectServer.start(home)
    os.environ["PREFECT_API_URL"] = server.api_url
    try:
        _log_to_file(home / "logs" / f"{log_name}.log")
        yield server
    finally:
        _send_pending_logs()
        server.stop()


def prepare_environment(home: Path) -> None:
    """Set this process's environment for `home`."""
    os.environ.update({**environment(home), **quiet_terminal()})
    if running := running_services(home):
        os.environ.setdefault("SDLORA_MLFLOW_PAGES", running["mlflow"])  # so that the run's page can link there


class PrefectServer:
    """A server to talk to, and its process if it is ours."""

    def __init__(self, api_url: str, process: Service | None = None) -> None:
        self.api_url, self.process = api_url, process

    @classmethod
    def start(cls, home: Path) -> PrefectServer:
        port, credentials = free_port(), credentials_of(home)
        os.environ.update(credentials.for_prefect_clients())
        command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--lifespan", "on"]
        # What Prefect itself sets for a server that serves one process: no web page, no scheduler.
        short_lived = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
        short_lived |= credentials.for_prefect_server(prefect_url(port))
        log = home / "logs" / "prefect-server.log"
        return cls(f"{prefect_url(port)}/api", Service("The Prefect server", command, short_lived, log))

    def wait_ready(self) -> None:
        """Return when the server answers.

        Raises:
            ServiceError: our own server did not start.
        """
        if self.process:
            self.process.wait_ready(f"{self.api_url}/health")

    def stop(self) -> None:
        if self.process:
            self.process.stop(timeout_seconds=5)


def _send_pending_logs() -> None:
    """Send logs and events that wait for the next batch; afterwards they would retry at a closed port."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=5)
    EventsWorker.drain_all(timeout=5)


def _log_to_file(path: Path) -> None:
    """Send what the libraries log to a file; the terminal shows progress and results only."""
    from prefect.logging.configuration import setup_logging

    setup_logging()  # now: it replaces the root handlers when it is first called
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a log that cannot be written (a full disk) is not worth a traceback on the screen
