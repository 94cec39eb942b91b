"""`sdlora up` as a person uses it: a run from the page completes, and Ctrl-C leaves nothing but what others run."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import yaml

from deployments.servers.running import running_services
from deployments.servers.services import require_free_port
from tests.stack import PROJECT, RunningStack, clean_environment, start_stack
from tests.waiting import PATIENCE_SECONDS, wait_until


def processes_of(home: Path) -> dict[int, str]:
    found = {}
    for process in psutil.process_iter():
        try:
            if process.environ().get("SDLORA_HOME") == str(home):
                found[process.pid] = " ".join(process.cmdline())
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue
    return found


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_a_run_started_over_the_api_completes(running_stack: RunningStack):
    assert running_stack.prefect in running_stack.said
    assert running_stack.mlflow in running_stack.said
    deployment = running_stack.api("deployments/name/retrain/retrain")
    run = running_stack.api(f"deployments/{deployment['id']}/create_flow_run", {})
    state = running_stack.finished(run["id"])
    assert state["type"] == "COMPLETED", state
    assert list(running_stack.home.glob("runs/mine/*/release/report.html"))
    assert not (running_stack.home / "alive" / run["id"]).exists()


def test_other_commands_find_the_running_servers(running_stack: RunningStack):
    found = running_services(running_stack.home)
    assert found == {"prefect": running_stack.prefect, "mlflow": running_stack.mlflow}


def test_a_run_from_a_terminal_is_seen_on_the_page_and_outlives_the_servers(settings, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    home = tmp_path / "home"
    stack = start_stack(home, config)
    command = [sys.executable, "-m", "deployments.cli", "run", "--home", str(home), "--config", str(config)]
    try:
        stack.wait_for("Stop everything")
        with (
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=PROJECT,
                env=clean_environment(),
            ) as typed,
            killed_at_the_end(typed),
        ):
            wait_until_training(home, typed)
            typed.send_signal(signal.SIGSTOP)  # so that its training is not over before the servers are, however quick
            (shown,) = stack.api("flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}})
            assert (home / "alive" / shown["id"]).is_file()

            stack.process.send_signal(signal.SIGINT)
            assert stack.process.wait(PATIENCE_SECONDS) == 0
            family = {typed.pid, *(child.pid for child in psutil.Process(typed.pid).children(recursive=True))}
            wait_until(lambda: processes_of(home).keys() <= family, "the end of all other processes")
            for url in (stack.prefect, stack.mlflow):
                require_free_port(port_of(url), "server", "--port")
            assert not (home / "services.json").exists()

            typed.send_signal(signal.SIGCONT)
            said, _ = typed.communicate(timeout=2 * PATIENCE_SECONDS)
            assert typed.returncode == 0, said
        assert "shapes version 1" in said
        wait_until(lambda: not processes_of(home), "the end of the run's own children, such as git")
    finally:
        stack.process.kill()


def wait_until_training(home: Path, process: subprocess.Popen[str]) -> None:
    def began() -> bool:
        assert process.poll() is None, process.stdout and process.stdout.read()
        return bool(list(home.glob("runs/shapes/*/mlflow_run.txt")))

    wait_until(began, "the beginning of the training")


@contextmanager
def killed_at_the_end(process: subprocess.Popen[str]) -> Iterator[None]:
    """A test that fails must not wait for a process that it has stopped."""
    try:
        yield
    finally:
        process.kill()


def test_no_worker_learns_the_password_before_mlflow_is_known_to_be_ours(tmp_path, settings):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    (tmp_path / "home" / "mlflow").mkdir(parents=True)
    (tmp_path / "home" / "mlflow" / "mlflow.db").write_bytes(b"no database" * 999)  # its server ends by itself
    stack = start_stack(tmp_path / "home", config)
    try:
        assert stack.process.wait(2 * PATIENCE_SECONDS) == 1
        wait_until(lambda: "The MLflow server ended" in stack.said, "the line of the MLflow server")
        assert not (tmp_path / "home" / "logs" / "worker.log").exists()
    finally:
        stack.process.kill()
