"""`sdlora up` as a service manager runs it, commands as people type them, and the processes of both."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.soak import records
from tests.soak.asked import ENDED, Asked, moment
from tests.soak.machine import Machine
from tests.soak.plan import STYLES
from tests.soak.processes import MARK, RUN_VARIABLE, marked, pss_bytes, role_of
from tests.soak.waiting import SoakError, wait_until
from tests.soak.world import World
from tests.stack import PROJECT, RunningStack, clean_environment, request, start_stack

SERVER_ERROR_SECONDS = 120.0


@dataclass
class System:
    """One `sdlora up` on the state folder of a world; it is started again when it has ended."""

    world: World
    machine: Machine
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    stack: RunningStack | None = None
    starts: int = 0
    start_seconds: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    server_errors: list[str] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.world.home

    @property
    def variables(self) -> dict[str, str]:
        return {MARK: self.mark, "OMP_NUM_THREADS": "1"} | self.machine.variables

    # `sdlora up`

    @property
    def is_up(self) -> bool:
        return self.stack is not None and self.stack.process.poll() is None

    def start(self) -> None:
        """Start `sdlora up`, and wait until all its servers answer."""
        began = time.monotonic()
        self.starts += 1
        self.stack = start_stack(self.home, self.world.style_file(STYLES[0]), self.variables)
        try:
            self.stack.wait_for("Stop everything")
        except AssertionError as error:
            raise SoakError(f"sdlora up did not start: {error}") from error
        self.start_seconds.append(time.monotonic() - began)

    def stop(self) -> None:
        """End `sdlora up` as Ctrl-C does."""
        if self.stack is None:
            return
        if self.is_up:
            self.stack.process.send_signal(signal.SIGINT)
        try:
            self.stack.process.wait(300)
        except subprocess.TimeoutExpired:
            raise SoakError(f"sdlora up did not stop: {self.stack.said[-1000:]}") from None
        self.said.append(self.stack.said)

    def recover(self, patience_seconds: float = 600) -> bool:
        """Wait until both servers answer; start `sdlora up` again if it has ended. Return True if it had ended."""
        deadline, restarted = time.monotonic() + patience_seconds, False
        while True:
            if not self.is_up:
                assert self.stack is not None
                self.said.append(self.stack.said)
                wait_until(lambda: not self.processes_of_up(), 300, "the servers of a killed sdlora up to end")
                self.start()
                restarted = True
            if self.answers():
                return restarted
            if time.monotonic() > deadline:
                raise SoakError(f"the servers do not answer again: {self.stack.said[-1500:] if self.stack else ''}")
            time.sleep(0.3)

    def answers(self) -> bool:
        assert self.stack is not None
        urls = (f"{self.stack.prefect}/api/health", f"{self.stack.mlflow}/health")
        try:
            return all(request(url)[0] == 200 for url in urls)
        except (OSError, http.client.HTTPException):
            return False

    def api(self, path: str, body: object = None, method: str | None = None) -> Any:
        """Call Prefect's REST interface; a server that is away is waited for, and started again if it has to be.

        Answers of status 500 and above are asked for again for a while, and counted in `server_errors`.
        """
        deadline = time.monotonic() + SERVER_ERROR_SECONDS
        while True:
            assert self.stack is not None
            data = None if body is None else json.dumps(body).encode()
            headers = {"Content-Type": "application/json", "Authorization": self.stack.basic}
            try:
                status, content = request(f"{self.stack.prefect}/api/{path}", headers, data, method)
            except (OSError, http.client.HTTPException):
                self.recover()
                continue
            if status >= 500:
                self.server_errors.append(f"{path}: {status} {content[:100]}")
                if time.monotonic() > deadline:
                    raise SoakError(f"Prefect's server goes on answering {self.server_errors[-1]}")
                time.sleep(1)
                continue
            assert status < 400, (path, status, content)
            return json.loads(content) if content else None

    # Runs and commands

    def ask(self, style: str, way: str) -> Asked:
        if way == "page":
            deployment = self.api(f"deployments/name/retrain/{style}")
            return Asked(style, flow_run_id=self.create_run(deployment["id"], {}))
        log = self.world.folder / "terminal" / f"{style}-{time.monotonic_ns()}.txt"
        log.parent.mkdir(exist_ok=True)
        with log.open("wb") as output:
            process = subprocess.Popen(
                self._command("run", style),
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment(),
                start_new_session=True,
            )
        return Asked(style, process=process, log=log)

    def has_trigger(self, style: str) -> bool:
        """Look whether the deployment of a style has the trigger of the style's file."""
        return "trigger" in self.api(f"deployments/name/retrain/{style}")["parameters"].get("advanced", {})

    def await_start(self, asked: Asked, patience_seconds: float = 300) -> None:
        """Wait until new data have started a run, and take it for the run that was asked for."""

        def begun() -> bool:
            if not self.is_up:
                self.recover()
            found = [one for one in records.starts_of(self.home, asked.style) if one.id > asked.starts_before]
            asked.flow_run_id = found[0].flow_run_id if found else None
            return asked.flow_run_id is not None

        wait_until(begun, patience_seconds, f"new images to start a run of {asked.style}")

    def create_run(self, deployment_id: str, parameters: dict[str, Any]) -> str:
        """Create a flow run, only one although the request may be repeated; return its id."""
        body = {"parameters": parameters, "idempotency_key": uuid.uuid4().hex}
        return str(self.api(f"deployments/{deployment_id}/create_flow_run", body)["id"])

    def has_ended(self, asked: Asked) -> bool:
        """Look whether a run has ended, and note how."""
        if asked.state:
            return True
        if asked.process is None and asked.flow_run_id is None:
            return False  # new data have not started it yet
        if asked.process is not None:
            code = asked.process.poll()
            if code is None:
                return False
            said = asked.log.read_text(errors="replace") if asked.log else ""
            asked.state = "COMPLETED" if code == 0 else "FAILED"
            asked.message = "" if code == 0 else f"exit status {code}: {said[-600:]}"
            return True
        state = self.api(f"flow_runs/{asked.flow_run_id}")["state"]
        if state["type"] in ENDED:
            asked.state, asked.message = state["type"], state.get("message") or ""
        return bool(asked.state)

    def wait(self, asked: Asked, patience_seconds: float) -> None:
        """Wait for the end of a run.

        Raises:
            SoakError: it did not end in time.
        """
        wait_until(lambda: self.has_ended(asked), patience_seconds, f"the run of {asked.style} to end", 0.5)

    def command(self, *words: str, patience_seconds: float = 600) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(*words),
            cwd=PROJECT,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=patience_seconds,
        )

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "deployments.cli", *words, "--home", str(self.home)]

    def _environment(self) -> dict[str, str]:
        return clean_environment() | self.variables | {"COLUMNS": "200"}

    def move_alias(self, style: str, version: int) -> None:
        """Move the alias `champion` as MLflow's page does."""
        assert self.stack is not None
        body = json.dumps({"name": style, "alias": "champion", "version": str(version)}).encode()
        headers = {"Content-Type": "application/json", "Authorization": self.stack.basic}
        path = "/api/2.0/mlflow/registered-models/alias"
        status, content = request(f"{self.stack.mlflow}{path}", headers, body, "POST")
        assert status == 200, (status, content)

    # Processes

    def processes(self) -> list[psutil.Process]:
        """List all processes of the soak, whoever their parents are; not this one."""
        return marked(self.mark)

    def processes_of_up(self) -> list[psutil.Process]:
        """List the servers and the worker, also those whose `sdlora up` is gone."""
        return [process for process in self.processes() if role_of(process)]

    def flow_run_process(self, asked: Asked) -> psutil.Process | None:
        """Return the process that works on a run."""
        if asked.process is not None:
            return psutil.Process(asked.process.pid) if asked.process.poll() is None else None
        of_run = {}
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(RUN_VARIABLE) == asked.flow_run_id:
                    of_run[process.pid] = process
        for process in of_run.values():
            with contextlib.suppress(psutil.Error):
                if process.ppid() not in of_run:
                    return process
        return None

    def long_lived(self) -> dict[str, list[psutil.Process]]:
        """Return the processes of each part of `sdlora up`, without those of flow runs."""
        if self.stack is None or not self.is_up:
            return {}
        found = {"up": [psutil.Process(self.stack.process.pid)]}
        for child in found["up"][0].children():
            with contextlib.suppress(psutil.Error):
                if role := role_of(child):
                    family = [child, *child.children(recursive=True)]
                    found[role] = [one for one in family if RUN_VARIABLE not in one.environ()]
        return found

    def early_runs(self) -> set[str]:
        """Return the runs that a worker took while the clock was ahead: their processes wait for their hour."""
        active = {"flow_runs": {"state": {"type": {"any_": ["PENDING"]}}}}
        return {
            run["id"]
            for run in self.api("flow_runs/filter", active)
            if moment(run["expected_start_time"]) > time.time()
        }

    def orphans(self) -> list[str]:
        """List processes that belong neither to the running `sdlora up` nor to a run: nobody will end them."""
        expected: set[int] = set()
        if self.is_up:
            assert self.stack is not None
            expected.add(self.stack.process.pid)
            for processes in self.long_lived().values():
                expected |= {process.pid for process in processes}
        found = []
        unexpected = [process for process in self.processes() if process.pid not in expected]
        early = self.early_runs() if unexpected and self.is_up else set()
        for process in unexpected:
            with contextlib.suppress(psutil.Error):
                if process.environ().get(RUN_VARIABLE) not in early:
                    found.append(f"{process.pid} (parent {process.ppid()}): {' '.join(process.cmdline())[:160]}")
        return found

    def memory(self) -> dict[str, float]:
        """Return the memory of each long-lived part in MB, shared pages divided among their users (PSS)."""
        return {role: sum(map(pss_bytes, processes)) / 1e6 for role, processes in sorted(self.long_lived().items())}


def load() -> float:
    return os.getloadavg()[0]
