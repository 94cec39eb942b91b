"""The local all-in-one: Prefect server, MLflow server, worker and deployments, until Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from deployments.credentials import FILE as CREDENTIALS_FILE
from deployments.credentials import credentials_of
from deployments.environment import environment, prefect_url
from deployments.local_run import SERVICES_FILE, running_services
from deployments.prefect_api import PrefectApi
from deployments.services import Service, ServiceError, require_free_port
from sdlora.config import PipelineConfig
from sdlora.errors import ConfigError
from tasks.form import parameters_of

PROJECT = Path(__file__).parent.parent  # where flows/ and tasks/ are, in a checkout and in an installation
PREFECT_FILE = Path(__file__).parent / "prefect.yaml"
POOL = "local"


class StopRequested(Exception):
    """Ctrl-C or SIGTERM."""


@dataclass
class LocalStack:
    """The servers of one state folder, in the order they were started."""

    home: Path
    config: PipelineConfig
    prefect_port: int
    mlflow_port: int
    say: Callable[[str], None]
    services: list[Service] = field(default_factory=list)

    @property
    def prefect(self) -> str:
        return prefect_url(self.prefect_port)

    @property
    def mlflow(self) -> str:
        return f"http://127.0.0.1:{self.mlflow_port}"

    def run(self) -> None:
        """Start everything, wait for Ctrl-C or SIGTERM, stop everything.

        Raises:
            ConfigError: a port is taken, or the folder's servers run already.
            ServiceError: a server did not start, or died.
        """
        self._check_free()
        previous = {number: signal.signal(number, _request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._start()
            self._watch()
        except StopRequested:
            self.say("Stopping ...")
        finally:
            for number in previous:
                signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it running
            self._stop()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _check_free(self) -> None:
        running = running_services(self.home)
        if running:
            raise ConfigError(f"The servers of {self.home} are running already: {running['prefect']}")
        require_free_port(self.prefect_port, "Prefect server", "--prefect-port")
        require_free_port(self.mlflow_port, "MLflow server", "--mlflow-port")

    def _start(self) -> None:
        began = time.monotonic()
        self.say(f"Starting the servers of {self.home} (logs in {self.home / 'logs'}) ...")
        prefect = self._launch("The Prefect server", [_tool("prefect"), "server", "start"])
        mlflow = self._launch("The MLflow server", [_tool("mlflow"), "server", *self._mlflow_options()])
        prefect.wait_ready(f"{self.prefect}/api/health")
        self.say("  Prefect server: ready")
        api = PrefectApi(self.prefect, credentials_of(self.home).login)
        for name in api.crash_orphans(self.home):
            self.say(f"  run {name} was cut off earlier: marked as crashed")
        api.ensure_process_pool(POOL)
        self._launch("The worker", [_tool("prefect"), "worker", "start", "--pool", POOL, "--name", "local"])
        self._deploy()
        api.set_parameters("retrain/retrain", parameters_of(self.config))
        self.say("  deployments: registered")
        mlflow.wait_ready(f"{self.mlflow}/health")
        self.say("  MLflow server: ready")
        (self.home / SERVICES_FILE).write_text(json.dumps({"prefect": self.prefect, "mlflow": self.mlflow}))
        self.say(f"Ready after {time.monotonic() - began:.0f} s.")
        self.say(f"  Prefect (start runs, watch them): {self.prefect}")
        self.say(f"  MLflow (curves, versions):        {self.mlflow}")
        credentials = credentials_of(self.home)
        self.say(f"Prefect asks once for {credentials.login} (from {self.home / CREDENTIALS_FILE})")
        self.say(f"Start a run: {self.prefect}/deployments, retrain, Run. Stop everything: Ctrl-C")

    def _mlflow_options(self) -> list[str]:
        folder = self.home / "mlflow"
        folder.mkdir(parents=True, exist_ok=True)
        # Clients on this machine write artifacts themselves: with the server's proxy, their addresses would make
        # sense only while it runs, and `sdlora run` works on the same records without it.
        return [
            *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--no-serve-artifacts"),
            *("--default-artifact-root", (folder / "artifacts").as_uri()),
            *("--host", "127.0.0.1", "--port", str(self.mlflow_port), "--workers", "1"),
        ]

    def _launch(self, name: str, command: list[str]) -> Service:
        log = self.home / "logs" / f"{name.removeprefix('The ').lower().replace(' ', '-')}.log"
        service = Service(name, command, self._environment(), log)
        self.services.append(service)
        return service

    def _environment(self) -> dict[str, str]:
        credentials = credentials_of(self.home)
        return {
            **environment(self.home),
            **credentials.for_prefect_server(self.prefect),
            **credentials.for_prefect_clients(),
            "SDLORA_PROJECT": str(PROJECT),
            "PREFECT_API_URL": f"{self.prefect}/api",
            # The option --port alone would leave the web page talking to the default port.
            "PREFECT_SERVER_API_PORT": str(self.prefect_port),
            "MLFLOW_TRACKING_URI": self.mlflow,
            # By default MLflow starts seven job runners of 250 MB each.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "PYTHONUNBUFFERED": "1",
        }

    def _deploy(self) -> None:
        log = self.home / "logs" / "deploy.log"
        command = [_tool("prefect"), "--no-prompt", "deploy", "--all", "--prefect-file", str(PREFECT_FILE)]
        with log.open("wb") as output:
            done = subprocess.run(
                command,
                env={**os.environ, **self._environment()},
                cwd=PROJECT,
                stdout=output,
                stderr=output,
                check=False,
            )
        if done.returncode != 0:
            raise ServiceError(f"The deployments could not be registered. Log: {log}")

    def _watch(self) -> None:
        while True:
            for service in self.services:
                service.check()
            time.sleep(1)

    def _stop(self) -> None:
        (self.home / SERVICES_FILE).unlink(missing_ok=True)
        for service in reversed(self.services):  # the worker first: it reports to the server while it stops
            service.stop()
        if self.services:
            self.say("Stopped.")


def _tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _request_stop(number: int, frame: FrameType | None) -> None:
    raise StopRequested
