"""Local stack: Prefect server, MLflow server, worker and deployments, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from deployments.environment import (
    DEMO_CONFIG,
    POOL,
    PREFECT_FILE,
    PROJECT,
    environment,
    history_limits,
    prefect_url,
)
from deployments.servers.credentials import Credentials, credentials_of
from deployments.servers.earlier_runs import flow_processes
from deployments.servers.end_with_up import variables_of_up
from deployments.servers.garbage import collect_garbage_often
from deployments.servers.mlflow_server import MlflowServer
from deployments.servers.patience import patient_environment, wait_for_prefect
from deployments.servers.running import record_services, stack_lock, watcher_works
from deployments.servers.services import Service, adopt_orphans, adopted_processes, listen_at, stop_others
from deployments.servers.supervise import SupervisorThread, prefect_command, supervise
from deployments.styles.files import ANY_STYLE, refuse_second_style
from sdlora.config import PipelineConfig, load_config
from sdlora.processes.memory import thresholds_of_servers
from tasks.form import STYLE
from tasks.private import private_folder

if TYPE_CHECKING:
    import psutil

    from deployments.styles.deployments import StyleDeployments

_STARTING_SECONDS = 30.0  # the longest time from a terminal run's first record to its lock
_WATCHER_SECONDS = 60.0  # the longest wait for the watcher, without which everything else works


class StopRequested(Exception):
    """Ctrl-C or SIGTERM arrived."""


@dataclass
class LocalStack:
    """Servers of one state folder, in the order of their start."""

    home: Path
    config_file: Path
    prefect_port: int
    mlflow_port: int
    echo: Callable[[str], None]
    on_terminal: bool
    receiver_port: int | None = None
    services: list[Service] = field(default_factory=list)
    styles: StyleDeployments | None = None
    _prefect_socket: socket.socket = field(init=False, repr=False)
    _mlflow_socket: socket.socket = field(init=False, repr=False)
    _receiver_socket: socket.socket | None = field(init=False, default=None, repr=False)
    _supervisor: SupervisorThread | None = field(init=False, default=None, repr=False)

    @property
    def prefect(self) -> str:
        return prefect_url(self.prefect_port)

    @property
    def _own_file(self) -> Path | None:
        """The file that `--config` names; None for the demo's style, which has no deployment of its own."""
        return None if self.config_file == DEMO_CONFIG.resolve() else self.config_file

    @property
    def mlflow(self) -> str:
        return f"http://127.0.0.1:{self.mlflow_port}"

    def run(self) -> None:
        """Start all servers, wait for Ctrl-C or SIGTERM, stop all servers.

        Raises:
            ConfigError: a port is in use, the folder's servers run already, or the style's file is broken or has the
                name of another style.
            ServiceError: a server did not start. A server that ends later is started again.
        """
        if self._own_file:
            refuse_second_style(self.home, self._own_file, load_config(self._own_file))
        with stack_lock(self.home):
            self._prefect_socket = listen_at(self.prefect_port, "Prefect server", "--prefect-port")
            self._mlflow_socket = listen_at(self.mlflow_port, "MLflow server", "--mlflow-port")
            if self.receiver_port:
                self._receiver_socket = listen_at(self.receiver_port, "receiver", "--receiver-port")
            previous = {number: signal.signal(number, _request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
            adopt_orphans()
            try:
                self._start(credentials_of(self.home))
                self._watch()
            except StopRequested:
                self.echo("Stopping ...")
            finally:
                for number in previous:
                    signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave servers running
                self._stop()
                for number, handler in previous.items():
                    signal.signal(number, handler)

    def _start(self, credentials: Credentials) -> None:
        """Start the servers, and import the flows meanwhile: each keeps a core busy for seconds."""
        started_at = time.monotonic()
        self.echo(f"Starting the servers of {self.home} (logs in {private_folder(self.home / 'logs')}) ...")
        os.environ.update(self._client_environment(credentials))
        variables = self._prefect_environment(credentials)
        prefect = self._launch("The Prefect server", prefect_command(), variables, self._prefect_socket)
        server = MlflowServer(self.home, self.mlflow_port, credentials)
        mlflow = self._launch("The MLflow server", server.command(), server.environment(), self._mlflow_socket)

        self.echo("  flows: loading ...")
        from deployments.register import ensure_process_pool, load_deployments
        from deployments.servers.heartbeat import start_heartbeat
        from deployments.styles.deployments import StyleDeployments
        from tasks.alive import crash_unclaimed

        config = load_config(self.config_file)
        deployments = load_deployments(PREFECT_FILE, PROJECT, _default_parameters(config))
        self.echo("  Prefect server: starting ...")
        prefect.wait_ready(f"{self.prefect}/api/health")
        for name in crash_unclaimed(self.home, _STARTING_SECONDS):
            self.echo(f"  run {name} was cut off earlier: marked as crashed")
        ensure_process_pool(POOL)
        for deployment in deployments:
            deployment.register()
        (template,) = (deployment for deployment in deployments if deployment.name == f"retrain/{ANY_STYLE}")
        self.styles = StyleDeployments(self.home, template, self._own_file, self.echo)
        self.styles.register_all()
        self.echo("  MLflow server: starting ...")
        mlflow.wait_ready(f"{self.mlflow}/health")
        # Only after MLflow is ready: a run sends the password to any process that listens at its port.
        worker = [sys.executable, "-m", "deployments.servers.worker"]
        variables = {**credentials.for_mlflow_clients(), **patient_environment(), **variables_of_up()}
        runner = self._launch("The worker", worker, variables)
        watcher = self._launch("The watcher", self._watcher_command(), patient_environment(), self._receiver_socket)
        services = {
            "prefect": (self.prefect, prefect),
            "mlflow": (self.mlflow, mlflow),
            "worker": (None, runner),
            "watcher": (None, watcher),
        }
        record_services(self.home, services)
        supervisor = supervise(services, self.home, self.echo, lambda: record_services(self.home, services))
        self._supervisor = SupervisorThread(supervisor)
        wait_for_prefect()  # the styles are followed while the server is started again
        self._await_watcher(watcher)
        os.environ.update(credentials.for_mlflow_clients())  # the heartbeat looks for moved aliases
        start_heartbeat(self.home)
        collect_garbage_often()
        self._print_addresses(time.monotonic() - started_at)

    def _await_watcher(self, watcher: Service) -> None:
        """Let `sdlora status` call all well once this command says so; a watcher that ends is the supervisor's."""
        deadline = time.monotonic() + _WATCHER_SECONDS
        while not watcher_works(self.home) and not watcher.ended and time.monotonic() < deadline:
            time.sleep(0.05)

    def _watcher_command(self) -> list[str]:
        command = [sys.executable, "-m", "deployments.arrivals.watcher"]
        command += ["--config", str(self._own_file)] if self._own_file else []
        return [*command, "--receiver"] if self.receiver_port else command

    def _print_addresses(self, seconds: float) -> None:
        self.echo(f"Ready after {seconds:.0f} s.")
        self.echo(f"  Prefect (start runs, watch them): {self.prefect}")
        self.echo(f"  MLflow (curves, versions):        {self.mlflow}")
        if self.on_terminal:  # a password printed into a pipe could stay in a log
            self.echo("  Each page asks for a password once:")
            self.echo(credentials_of(self.home).instructions())
        else:
            self.echo(
                f"  Each page asks for a password once, which this command shows: sdlora login --home {self.home}"
            )
        self.echo(f"Start a run: {self.prefect}/deployments, a style or retrain, Run. Stop everything: Ctrl-C")

    def _launch(
        self, name: str, command: list[str], variables: Mapping[str, str], listener: socket.socket | None = None
    ) -> Service:
        log = self.home / "logs" / f"{name.removeprefix('The ').lower().replace(' ', '-')}.log"
        # Run in the project's folder: Python would else import modules from the folder where the command was typed.
        service = Service(name, command, variables, log, PROJECT, listener)
        self.services.append(service)
        return service

    def _client_environment(self, credentials: Credentials) -> dict[str, str]:
        """Return variables for this process and its children."""
        return {
            **environment(self.home),
            **credentials.for_prefect_clients(),
            "SDLORA_PROJECT": str(PROJECT),
            "PREFECT_API_URL": f"{self.prefect}/api",
            "MLFLOW_TRACKING_URI": self.mlflow,
            "PYTHONUNBUFFERED": "1",
        }

    def _prefect_environment(self, credentials: Credentials) -> dict[str, str]:
        # With the option --port instead, the web page would still use the default port.
        port = {"PREFECT_SERVER_API_PORT": str(self.prefect_port)}
        own = {**port, **history_limits(self.home), **thresholds_of_servers()}
        return {**credentials.for_prefect_server(self.prefect), **own}

    def _watch(self) -> None:
        while True:
            adopted_processes(self.services)
            if self.styles:
                self.styles.follow()
            time.sleep(1)

    def _stop(self) -> None:
        if self._supervisor:
            self._supervisor.stop()
        stop_others(self._runs_of_earlier_workers())
        for service in reversed(self.services):  # the worker stops first: it reports to the server meanwhile
            service.stop()
        self._prefect_socket.close()
        self._mlflow_socket.close()
        if self._receiver_socket:
            self._receiver_socket.close()
        if self.services:
            self.echo("Stopped.")

    def _runs_of_earlier_workers(self) -> set[psutil.Process]:
        """Return the runs of a worker that was killed, also of one of a killed `sdlora up`."""
        own = {process for service in self.services for process in service.descendants()}
        return {*adopted_processes(self.services), *flow_processes(self.home).values()} - own


def _default_parameters(config: PipelineConfig) -> dict[str, dict[str, Any]]:
    """Return the default parameters of forms and schedules, from the style's file."""
    style = STYLE.parameters(config)
    for section in ("schedule", "trigger"):  # the style's own deployment has them
        style.get("advanced", {}).pop(section, None)
    images = {name: value for name, value in style.items() if name in ("sources", "advanced")}
    return {"retrain/retrain": style, "compare/compare": style, "collect/collect": images}


def _request_stop(number: int, frame: FrameType | None) -> None:
    raise StopRequested
