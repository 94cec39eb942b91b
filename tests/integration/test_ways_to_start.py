"""One style, started by a command, a form, a schedule, a REST call and a call in Python: always the same run."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.sync_api import Browser

from sdlora.config import load_config
from tasks.form import STYLE
from tests.flow_runs import clock_starts, until
from tests.prefect_page import logged_in, submit_form
from tests.stack import PATIENCE_SECONDS, PROJECT, RunningStack, clean_environment, request

DIGEST = re.compile(r"Run ([0-9a-f]{64})")


@pytest.fixture(scope="module")
def deployment(running_stack: RunningStack) -> dict[str, Any]:
    return running_stack.api("deployments/name/retrain/retrain")


def digest_of(stack: RunningStack, flow_run_id: str) -> str:
    """The digest that a finished run wrote into its log."""
    logs = {"flow_run_id": {"any_": [flow_run_id]}}
    stack.completed(flow_run_id)

    def found() -> set[str]:
        lines = [line["message"] for line in stack.api("logs/filter", {"logs": logs, "limit": 200})]
        return {match[1] for line in lines if (match := DIGEST.search(line))}

    (digest,) = until(found)  # the last lines of a run arrive some seconds after its state
    return str(digest)


def test_what_the_server_keeps_of_the_style_is_what_its_file_says(running_stack, deployment):
    parameters = deployment["parameters"]
    assert parameters.keys() == {"name", "sources", "steps", "advanced"}
    assert parameters["advanced"]["data"] == {"held_out_fraction": 0.4}
    advanced = parameters.pop("advanced")
    assert STYLE.config(advanced, **parameters) == load_config(running_stack.config)


def test_all_ways_to_start_it_lead_to_the_same_run_which_is_trained_once(
    running_stack: RunningStack, deployment: dict[str, Any], browser: Browser
) -> None:
    began = datetime.now(UTC)
    with logged_in(browser, running_stack) as page:
        by_form = submit_form(page, running_stack, deployment["id"])
    digests = {"form": digest_of(running_stack, by_form)}
    called = running_stack.api(f"deployments/{deployment['id']}/create_flow_run", {})
    digests["REST"] = digest_of(running_stack, called["id"])
    digests["schedule"] = digest_of(running_stack, clock_starts(running_stack, "retrain"))
    digests["command"] = digest_of_command(running_stack)
    digests["call"] = digest_of_call(running_stack)
    assert len(set(digests.values())) == 1, digests
    runs = running_stack.home.glob("runs/mine/????????????????")
    assert [folder.name for folder in runs] == [digests["form"][:16]]
    pages = running_stack.api("artifacts/filter", {"artifacts": {"key": {"any_": ["result"]}}})
    pages = [page for page in pages if datetime.fromisoformat(page["created"]) > began]
    assert len(pages) == len(digests)
    assert all(f"]({running_stack.mlflow}/#/" in str(page["data"]) for page in pages)
    assert not [page["key"] for page in pages if "file://" in str(page["data"])]


def digest_of_command(stack: RunningStack) -> str:
    command = [sys.executable, "-m", "deployments.cli", "run", "--config", str(stack.config), "--home", str(stack.home)]
    done = subprocess.run(
        command, cwd=PROJECT, env=clean_environment(), umask=0, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing new" in done.stdout
    return str(DIGEST.findall((stack.home / "logs" / "run.log").read_text())[-1])


def digest_of_call(stack: RunningStack) -> str:
    images, home = str(stack.config.parent / "images"), str(stack.home)
    advanced = {"data": {"held_out_fraction": 0.4}}
    script = (
        "from pathlib import Path\nfrom flows.retrain import retrain\n"
        f"release = retrain('mine', [{images!r}], steps=4, home=Path({home!r}), advanced={advanced!r})\n"
        "print('Run', release.run.digest)"
    )
    environment = clean_environment() | stack.environment()
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return DIGEST.findall(done.stdout)[-1]


@pytest.mark.parametrize(
    ("parameters", "refusal"),
    [
        ({"steps": 0}, "'steps'. Failure reason: 0 is less than the minimum of 1"),
        ({"rank": "many"}, "'rank'. Failure reason: 'many' is not valid"),
        ({"advanced": {"trainin": {}}}, "'trainin' is not one of ['data', 'base_model'"),
        ({"name": "My Style"}, "'My Style' does not match"),
        ({"name": "x" * 300}, "is too long"),
        ({"steps": 99999999999999999999}, "99999999999999999999 is greater than the maximum of 10000000"),
        ({"learning_rate": 1e30}, "1e+30 is greater than the maximum of 10"),
    ],
)
def test_what_the_schema_can_tell_is_refused_before_anything_is_queued(parameters, refusal, running_stack, deployment):
    status, answer = request(
        f"{running_stack.prefect}/api/deployments/{deployment['id']}/create_flow_run",
        {"Content-Type": "application/json", "Authorization": running_stack.basic},
        json.dumps({"parameters": parameters}).encode(),
    )
    assert (status, refusal in answer) == (409, True), answer


def test_all_else_is_refused_in_our_words_as_the_runs_first_act(running_stack, deployment):
    parameters = {"advanced": {"training": {"stepz": 3}, "data": {"unsafe_model": "a\0b"}}}
    run = running_stack.start_run(deployment["id"], **parameters)
    state = running_stack.finished(run)
    assert state["type"] == "FAILED"
    assert "training.stepz: unknown setting. Did you mean 'steps'?" in state["message"]
    assert "data.unsafe_model: a text without the character NUL is expected" in state["message"]
    assert running_stack.api("task_runs/count", {"flow_runs": {"id": {"any_": [run]}}}) == 0


def test_what_servers_workers_and_commands_wrote_is_writable_for_its_owner_only(running_stack):
    modes = {}
    for path in [running_stack.home, *running_stack.home.rglob("*")]:
        with contextlib.suppress(FileNotFoundError):  # a journal of a database that is gone by now
            if not path.is_symlink():
                modes[path] = path.stat().st_mode
    assert len(modes) > 20
    assert [path for path, mode in modes.items() if mode & 0o022] == []
