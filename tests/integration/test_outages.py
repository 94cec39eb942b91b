"""Runs outlive their servers: a server of `sdlora up` or of a terminal run is killed, and the run completes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.flow_runs import until
from tests.integration.test_up import processes_of
from tests.stack import PATIENCE_SECONDS, PROJECT, RunningStack, clean_environment, start_stack
from tests.unit.deployments.test_json_output import documented, shape, written


@pytest.fixture(scope="module")
def stack(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    folder = tmp_path_factory.mktemp("outages")
    config = folder / "shapes.yaml"
    config.write_text(yaml.safe_dump(settings))
    stack = start_stack(folder / "home", config)
    try:
        stack.wait_for("Stop everything")
        yield stack
    finally:
        stack.stop()


def start_run(stack: RunningStack, **parameters: Any) -> str:
    deployment = stack.api("deployments/name/retrain/retrain")
    return stack.start_run(deployment["id"], **parameters)


def has_begun_training(home: Path, name: str) -> list[Path]:
    return list(home.glob(f"runs/{name}/*/mlflow_run.txt"))


def wait_for_training(stack: RunningStack, run: str, name: str) -> None:
    def has_begun() -> bool:
        state = stack.api(f"flow_runs/{run}")["state"]
        assert state["type"] in {"SCHEDULED", "PENDING", "RUNNING"}, state
        return bool(has_begun_training(stack.home, name))

    until(has_begun)


def test_a_run_whose_worker_is_killed_goes_on_and_a_new_worker_takes_the_next_run(stack: RunningStack):
    run = start_run(stack, name="other")
    wait_for_training(stack, run, "other")
    (worker,) = (pid for pid, line in processes_of(stack.home).items() if "deployments.servers.worker" in line)
    os.kill(worker, signal.SIGKILL)
    stack.wait_for("The worker was killed by signal 9. It starts again")
    state = stack.finished(run)
    assert state["type"] == "COMPLETED", state
    until(lambda: any("deployments.servers.worker" in line for line in processes_of(stack.home).values()))


def test_a_run_completes_although_both_servers_are_killed_while_it_trains(stack: RunningStack):
    run = start_run(stack)  # taken by the second worker
    wait_for_training(stack, run, "shapes")
    records = json.loads((stack.home / "services.json").read_text())
    for name in ("prefect", "mlflow"):
        os.killpg(records[name]["pid"], signal.SIGKILL)
    for name in ("Prefect", "MLflow"):
        stack.wait_for(f"The {name} server was killed by signal 9. It starts again in 1 s.")
    for name in ("Prefect", "MLflow"):
        stack.wait_for(f"The {name} server answers again.")
    state = stack.finished(run)
    assert state["type"] == "COMPLETED", state
    tasks = stack.api("task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
    assert {task["name"].rpartition("-")[0]: task["state_type"] for task in tasks}["publish"] == "COMPLETED"
    now = json.loads((stack.home / "services.json").read_text())
    assert all(now[name]["pid"] != records[name]["pid"] for name in ("prefect", "mlflow"))
    (folder,) = stack.home.glob("runs/shapes/*")
    curve = stack_metric(stack, (folder / "mlflow_run.txt").read_text().strip(), "loss")
    assert curve == [2, 4, 6]


def stack_metric(stack: RunningStack, run_id: str, name: str) -> list[int]:
    code = (
        "import sys; from mlflow import MlflowClient;"
        "print([point.step for point in MlflowClient().get_metric_history(sys.argv[1], sys.argv[2])])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, run_id, name], env=stack.environment(), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def sdlora(stack: RunningStack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deployments.cli", *arguments, "--home", str(stack.home)]
    return subprocess.run(command, cwd=PROJECT, env=clean_environment(), capture_output=True, text=True)


def test_status_logs_and_down_tell_of_servers_and_runs(stack: RunningStack):
    run = start_run(stack, name="third", steps=1_000_000)  # so that it still trains when the servers are stopped
    wait_for_training(stack, run, "third")
    shown = until(lambda: status_if_good(stack))
    assert [service["state"] for service in shown["services"]] == ["running"] * 4
    (running,) = (each for each in shown["runs"] if each["id"] == run)
    assert written(shape(shown)) == documented("sdlora status")
    # A run's lines are sent every few seconds.
    until(lambda: "images judged now" in sdlora(stack, "logs", running["name"]).stdout)
    assert "Worker 'local' started!" in sdlora(stack, "logs", "worker").stdout

    stopped = json.loads(sdlora(stack, "down", "--json").stdout)
    assert stopped == {
        "was_up": True,
        "services": ["prefect", "mlflow", "worker", "watcher"],
        "ended_runs": [running["name"]],
        "other_runs": [],
    }
    assert stack.process.wait(300) == 0
    until(lambda: processes_of(stack.home) == {})
    assert sdlora(stack, "status").returncode == 1


def status_if_good(stack: RunningStack) -> dict[str, Any] | None:
    shown: dict[str, Any] = json.loads(sdlora(stack, "status", "--json").stdout)
    return shown if shown["is_good"] else None


@pytest.mark.slow
def test_a_run_saves_and_ends_although_sdlora_up_and_its_worker_are_killed(settings: dict[str, Any], tmp_path: Path):
    config = tmp_path / "shapes.yaml"
    config.write_text(yaml.safe_dump(settings))
    stack = start_stack(tmp_path / "home", config)
    try:
        stack.wait_for("Stop everything")
        wait_for_training(stack, start_run(stack, name="long", steps=1_000_000), "long")
        (worker,) = (pid for pid, line in processes_of(stack.home).items() if "deployments.servers.worker" in line)
        for pid in (worker, stack.process.pid):  # nobody is left to end the run
            os.kill(pid, signal.SIGKILL)
        stack.process.wait(60)
        until(lambda: processes_of(stack.home) == {})
        assert list(stack.home.glob("runs/long/*/checkpoints/*"))
    finally:
        stack.process.kill()


def test_a_terminal_run_starts_its_prefect_server_again(settings: dict[str, Any], tmp_path: Path):
    home, config = tmp_path / "home", tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "deployments.cli", "run", "--home", str(home), "--config", str(config)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=PROJECT, env=clean_environment()
    ) as typed:
        until(lambda: has_begun_training(home, "shapes"))
        (server,) = (
            child for child in psutil.Process(typed.pid).children() if "prefect_server" in " ".join(child.cmdline())
        )
        server.kill()
        said, _ = typed.communicate(timeout=PATIENCE_SECONDS)
    assert typed.returncode == 0, said
    assert "shapes version 1" in said
    assert "so training uses bf16" not in said  # the settings say fp32
    assert "The Prefect server answers again" in (home / "logs" / "run.log").read_text()
    until(lambda: processes_of(home) == {})
