"""A candidate that waits, decided on Prefect's page in a real browser, and questions that are void."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from playwright.sync_api import Locator, Page, expect

from deployments.servers.earlier_runs import flow_processes
from sdlora.records.champions import ChampionHistory
from sdlora.store.champions import champion_history
from sdlora.store.image_store import ImageStore
from tests.flow_runs import until
from tests.prefect_page import logged_in, served
from tests.stack import PROJECT, RunningStack, clean_environment, request
from tests.tiny import draw_images

STYLE = "asked"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_images(tmp_path_factory.mktemp("asked") / "images", 24, seed=31)


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
    stack.completed(stack.start_run(deployment["id"], **parameters))


def question(stack: RunningStack, version: int) -> dict[str, Any]:
    """Wait until the question about a version is asked; returns its run, which is suspended."""
    deployment = stack.api("deployments/name/decide/decide")
    wanted = {"flow_runs": {"deployment_id": {"any_": [deployment["id"]]}}}

    def asked() -> dict[str, Any] | None:
        runs = [run for run in stack.api("flow_runs/filter", wanted) if run["parameters"]["version"] == version]
        paused = [run for run in runs if run["state"]["type"] == "PAUSED"]
        return paused[0] if paused else None

    run: dict[str, Any] = until(asked)
    return run


def test_a_person_approves_on_the_page_and_the_champion_moves(running_stack, base_folder, images, browser):
    stack = running_stack
    published(stack, base_folder, images)
    run = question(stack, 1)
    assert run["state"]["name"] == "Suspended"
    assert history(stack).champion is None
    until(lambda: UUID(run["id"]) not in flow_processes(stack.home))  # a waiting run holds no process
    (evidence,) = stack.api("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
    assert evidence["key"] == "question"
    assert "data:image/jpeg" in evidence["data"]
    assert f"]({stack.mlflow}/#/models/asked/versions/1" in evidence["data"]

    with logged_in(browser, stack) as page:
        approve(page, f"{stack.prefect}/v2/runs/flow-run/{run['id']}")
    state = stack.finished(run["id"])
    assert (state["type"], state["name"]) == ("COMPLETED", "Completed"), state
    newest = history(stack).entries[-1]
    assert (newest.kind, newest.to_version, newest.who) == ("first champion", 1, "Ana")
    assert newest.why == "it keeps the outlines"
    written = stack.api("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
    assert sorted(artifact["key"] for artifact in written) == ["decision", "question"]


def approve(page: Page, address: str) -> None:
    """Answer the question of a suspended run in its page's form."""

    def fill() -> Locator:
        page.goto(address)
        page.get_by_role("button", name="Open menu").click()
        page.get_by_role("menuitem", name="Resume").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_text("Does asked version 1 become the champion?")).to_be_visible()
        dialog.get_by_role("button", name="Select").click()
        page.get_by_role("option", name="approve").click()
        dialog.get_by_role("textbox").first.fill("Ana")
        dialog.get_by_role("textbox").last.fill("it keeps the outlines")
        return dialog.get_by_role("button", name="Resume", exact=True)

    answer = served(page, fill, "**/resume")
    assert answer.json()["status"] == "ACCEPT", answer.text()


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
