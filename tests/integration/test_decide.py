"""A candidate that waits, decided on Prefect's page in a real browser, and questions that are void."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect

from sdlora.records.champions import ChampionHistory
from sdlora.store.champions import champion_history
from sdlora.store.image_store import ImageStore
from tests.stack import PROJECT, RunningStack, clean_environment, request
from tests.tiny import draw_images

STYLE = "asked"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_images(tmp_path_factory.mktemp("asked") / "images", 24, seed=31)


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


def history(stack: RunningStack) -> ChampionHistory:
    with ImageStore.open(stack.home) as store, store.read() as session:
        return champion_history(session, STYLE)


def published(stack: RunningStack, base: Path, images: Path) -> None:
    """Run the loop once for a style whose candidates always wait."""
    deployment = stack.api("deployments/name/retrain/retrain")
    small = {"max_prompts": 8, "steps": 2, "denoising_steps": 2, "resamples": 100, "fid_resamples": 100}
    advanced = {
        "data": {"held_out_fraction": 0.4},
        "lora": {"targets": "attention"},
        "gate": {"mode": "manual"},
        "evaluation": small,
    }
    style = {"name": STYLE, "sources": [str(images)], "base_model": str(base), "steps": 4, "rank": 2}
    parameters = style | {"advanced": advanced}
    run = stack.api(f"deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})
    state = stack.finished(run["id"])
    assert state["type"] == "COMPLETED", state


def question(stack: RunningStack, version: int) -> dict[str, Any]:
    """Wait until the question about a version is asked; returns its run, which is suspended."""
    deployment = stack.api("deployments/name/decide/decide")
    wanted = {"flow_runs": {"deployment_id": {"any_": [deployment["id"]]}}}
    deadline = time.monotonic() + 120
    while True:
        runs = [run for run in stack.api("flow_runs/filter", wanted) if run["parameters"]["version"] == version]
        if runs and runs[0]["state"]["type"] == "PAUSED":
            (run,) = runs
            return run
        assert time.monotonic() < deadline, runs
        time.sleep(1)


def processes_of(run: dict[str, Any]) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if run["id"] in process.environ().get("PREFECT__FLOW_RUN_ID", ""):
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue
    return found


def wait_without_process(run: dict[str, Any]) -> None:
    deadline = time.monotonic() + 60
    while processes_of(run):
        assert time.monotonic() < deadline, "a waiting run holds a process"
        time.sleep(0.5)


def test_a_person_approves_on_the_page_and_the_champion_moves(running_stack, base_folder, images, page):
    stack = running_stack
    published(stack, base_folder, images)
    run = question(stack, 1)
    assert run["state"]["name"] == "Suspended"
    assert history(stack).champion is None
    wait_without_process(run)
    (evidence,) = stack.api("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
    assert evidence["key"] == "question"
    assert "data:image/jpeg" in evidence["data"]
    assert f"]({stack.mlflow}/#/models/asked/versions/1" in evidence["data"]

    page.goto(f"{stack.prefect}/v2/runs/flow-run/{run['id']}")
    page.get_by_role("button", name="Open menu").click()
    page.get_by_role("menuitem", name="Resume").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("Does asked version 1 become the champion?")).to_be_visible(timeout=30_000)
    dialog.get_by_role("button", name="Select").click()
    page.get_by_role("option", name="approve").click()
    dialog.get_by_role("textbox").first.fill("Ana")
    dialog.get_by_role("textbox").last.fill("it keeps the outlines")
    dialog.get_by_role("button", name="Resume", exact=True).click()

    state = stack.finished(run["id"])
    assert (state["type"], state["name"]) == ("COMPLETED", "Completed"), state
    newest = history(stack).entries[-1]
    assert (newest.kind, newest.to_version, newest.who) == ("first champion", 1, "Ana")
    assert newest.why == "it keeps the outlines"
    written = stack.api("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
    assert sorted(artifact["key"] for artifact in written) == ["decision", "question"]


def test_answers_are_void_after_a_move_by_hand_and_questions_end_with_a_decision_by_command(
    running_stack, base_folder, images
):
    stack = running_stack
    draw_images(images / "more", 8, seed=32)
    published(stack, base_folder, images)
    run = question(stack, 2)
    body = {"name": STYLE, "alias": "champion"}
    status, said = request(
        f"{stack.mlflow}/api/2.0/mlflow/registered-models/alias?name={STYLE}&alias=champion",
        {"Authorization": stack.basic, "Content-Type": "application/json"},
        json.dumps(body).encode(),
        "DELETE",
    )
    assert status == 200, said
    answer = {"run_input": {"decision": "approve", "name": "Bo", "why": ""}}
    assert stack.api(f"flow_runs/{run['id']}/resume", answer)["status"] == "ACCEPT"
    state = stack.finished(run["id"])
    assert (state["type"], state["name"]) == ("COMPLETED", "Void"), state
    assert "its duel was against the champion of then (version 1), and no version is the champion" in state["message"]
    moved = history(stack).entries[-1]
    assert (moved.kind, moved.to_version) == ("moved by hand", None)

    draw_images(images / "still more", 8, seed=33)
    published(stack, base_folder, images)
    run = question(stack, 3)
    command = [sys.executable, "-m", "deployments.cli", "reject", STYLE, "--why", "dull", "--home", str(stack.home)]
    done = subprocess.run(command, cwd=PROJECT, env=clean_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    state = stack.finished(run["id"])
    assert state["type"] == "CANCELLED", state
    assert state["message"].startswith("Void: it was rejected by")
    assert history(stack).champion is None
