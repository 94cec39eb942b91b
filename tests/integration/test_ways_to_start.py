"""One style, started by a command, a form, a schedule, a REST call and a call in Python: always the same run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from sdlora.config import load_config
from tasks.form import STYLE
from tests.stack import PROJECT, RunningStack, clean_environment, request
from tests.tiny import draw_images

DIGEST = re.compile(r"Run ([0-9a-f]{64})")


@pytest.fixture(scope="module")
def deployment(running_stack: RunningStack) -> dict[str, Any]:
    return running_stack.api("deployments/name/retrain/retrain")


@pytest.fixture
def page(running_stack: RunningStack, browser: Browser) -> Iterator[Page]:
    """The Prefect page of a person who has logged in."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    opened = context.new_page()
    opened.goto(f"{running_stack.prefect}/v2/login")
    opened.get_by_role("textbox").first.fill(running_stack.credentials.login)
    opened.keyboard.press("Enter")
    opened.wait_for_url("**/dashboard**")
    yield opened
    context.close()


def digest_of(stack: RunningStack, flow_run_id: str) -> str:
    """The digest that a finished run wrote into its log."""
    logs = {"flow_run_id": {"any_": [flow_run_id]}}
    state = stack.finished(flow_run_id)
    assert state["type"] == "COMPLETED", state
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:  # the last lines of a run arrive some seconds after its state
        lines = [line["message"] for line in stack.api("logs/filter", {"logs": logs, "limit": 200})]
        if found := {match[1] for line in lines if (match := DIGEST.search(line))}:
            (digest,) = found
            return digest
        time.sleep(0.5)
    raise AssertionError(lines)


def run_of_the_clock(stack: RunningStack, deployment_id: str) -> str:
    """Add a schedule that is due in some seconds; returns the id of the run that it starts."""
    first = datetime.now(UTC) + timedelta(seconds=12)
    schedule = {"schedule": {"interval": 60, "anchor_date": first.isoformat()}, "active": True}
    (added,) = stack.api(f"deployments/{deployment_id}/schedules", [schedule])
    wanted = {
        "flow_runs": {
            "state": {"type": {"any_": ["PENDING", "RUNNING", "COMPLETED"]}},
            "tags": {"all_": ["auto-scheduled"]},
        }
    }
    deadline = time.monotonic() + 180
    while not (started := stack.api("flow_runs/filter", wanted)):
        assert time.monotonic() < deadline, "the schedule started nothing"
        time.sleep(1)
    stack.api(f"deployments/{deployment_id}/schedules/{added['id']}", method="DELETE")
    return str(started[0]["id"])


def test_what_the_server_keeps_of_the_style_is_what_its_file_says(running_stack, deployment):
    parameters = deployment["parameters"]
    assert parameters.keys() == {"name", "sources", "steps", "advanced"}
    assert parameters["advanced"]["data"] == {"held_out_fraction": 0.4}
    advanced = parameters.pop("advanced")
    assert STYLE.config(advanced, **parameters) == load_config(running_stack.config)


def test_on_new_images_all_ways_to_start_it_lead_to_the_same_run_which_is_trained_once(running_stack, deployment, page):
    draw_images(running_stack.config.parent / "images", 30, seed=5)  # six more than before
    began, runs = datetime.now(UTC), running_stack.home / "runs" / "mine"
    before = set(runs.glob("????????????????"))
    page.goto(f"{running_stack.prefect}/v2/deployments/deployment/{deployment['id']}/run")
    expect(page.get_by_text("steps (Optional)")).to_be_visible()
    with page.expect_response("**/create_flow_run") as answer:
        page.get_by_role("button", name="Submit").click()
    by_form = str(answer.value.json()["id"])
    digests = {"form": digest_of(running_stack, by_form)}
    called = running_stack.api(f"deployments/{deployment['id']}/create_flow_run", {})
    digests["REST"] = digest_of(running_stack, called["id"])
    digests["schedule"] = digest_of(running_stack, run_of_the_clock(running_stack, deployment["id"]))
    digests["command"] = digest_of_command(running_stack)
    digests["call"] = digest_of_call(running_stack)
    assert len(set(digests.values())) == 1, digests
    assert {folder.name for folder in set(runs.glob("????????????????")) - before} == {digests["form"][:16]}
    pages = running_stack.api("artifacts/filter", {"artifacts": {"key": {"any_": ["result"]}}})
    pages = [page for page in pages if datetime.fromisoformat(page["created"]) > began]
    assert len(pages) == len(digests)
    assert all(f"]({running_stack.mlflow}/#/" in str(page["data"]) for page in pages)
    assert not [page["key"] for page in pages if "file://" in str(page["data"])]


def digest_of_command(stack: RunningStack) -> str:
    command = [sys.executable, "-m", "deployments.cli", "run", "--config", str(stack.config), "--home", str(stack.home)]
    done = subprocess.run(
        command, cwd=PROJECT, env=clean_environment(), umask=0, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing new" in done.stdout
    log = max((stack.home / "logs").glob("run*.log"), key=lambda path: path.stat().st_mtime).read_text()
    return DIGEST.findall(log)[-1]


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
        [sys.executable, "-c", script], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=300
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
    began = time.monotonic()
    parameters = {"advanced": {"training": {"stepz": 3}, "data": {"unsafe_model": "a\0b"}}}
    run = running_stack.api(f"deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})
    state = running_stack.finished(run["id"])
    assert state["type"] == "FAILED"
    assert "training.stepz: unknown setting. Did you mean 'steps'?" in state["message"]
    assert "data.unsafe_model: a text without the character NUL is expected" in state["message"]
    assert time.monotonic() - began < 45  # 15 s on idle cores


def test_what_servers_workers_and_commands_wrote_is_writable_for_its_owner_only(running_stack):
    written = [running_stack.home, *running_stack.home.rglob("*")]
    assert len(written) > 100
    open_to_others = [path for path in written if not path.is_symlink() and path.stat().st_mode & 0o022]
    assert open_to_others == []
