"""Styles under a real `sdlora up`: the clock starts them, hours forbid it, the page's form is a person's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Browser, expect

from deployments.styles.files import style_file
from tests.settings import make_style
from tests.stack import RunningStack, start_stack

EACH_MINUTE = "* * * * *"


@pytest.fixture(scope="module")
def stack(settings: dict[str, Any], first_images: Path, tmp_path_factory) -> Iterator[RunningStack]:
    """`sdlora up` with two styles that are due each minute; the hours of one of them are over."""
    folder = tmp_path_factory.mktemp("scheduled")
    home, now = folder / "home", datetime.now(UTC)
    over = f"{now + timedelta(hours=2):%H:%M}-{now + timedelta(hours=3):%H:%M}"
    for name, schedule in (("open", {"tags": ["art"]}), ("closed", {"window": over})):
        make_style(home, name, first_images, **sections(settings), schedule={"cron": EACH_MINUTE, **schedule})
    config = folder / "mine.yaml"
    config.write_text(yaml.safe_dump({**settings, "name": "mine"}))
    stack = start_stack(home, config)
    try:
        stack.wait_for("Stop everything")
        yield stack
    finally:
        stack.process.terminate()
        stack.process.wait(60)


def sections(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in ("name", "data")}


def until(condition: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.2)
    return found


def runs_of_the_clock(stack: RunningStack, deployment_id: str) -> list[dict[str, Any]]:
    flow_runs = {
        "deployment_id": {"any_": [deployment_id]},
        "tags": {"all_": ["auto-scheduled"]},
        "state": {"type": {"any_": ["PENDING", "RUNNING", "COMPLETED", "FAILED", "CRASHED"]}},
    }
    return stack.api("flow_runs/filter", {"flow_runs": flow_runs, "sort": "START_TIME_ASC"})


def test_the_clock_starts_a_style_skips_one_outside_its_hours_and_a_person_is_not_bound(
    stack: RunningStack, settings, first_images, browser: Browser
):
    assert "styles: closed, mine, open" in stack.said
    found = {name: stack.api(f"deployments/name/retrain/{name}") for name in ("open", "closed", "mine", "retrain")}
    assert [len(found[name]["schedules"]) for name in found] == [1, 1, 0, 0]

    added_at = time.monotonic()
    make_style(stack.home, "later", first_images, **sections(settings))
    stack.wait_for("Style later is taken up.", patience_seconds=10)
    assert time.monotonic() - added_at < 10
    assert stack.api("deployments/name/retrain/later")["parameters"]["name"] == "later"

    started = until(lambda: runs_of_the_clock(stack, found["open"]["id"]), 120)[0]
    skipped = until(lambda: runs_of_the_clock(stack, found["closed"]["id"]), 120)[0]
    for name in ("open", "closed"):  # once is enough
        file = style_file(stack.home, name)
        settings_of_it = yaml.safe_load(file.read_text())
        del settings_of_it["schedule"]["cron"]
        file.write_text(yaml.safe_dump(settings_of_it))
    assert stack.finished(started["id"])["name"] == "Completed"
    assert list(stack.home.glob("runs/open/*/release/report.html"))
    assert "art" in started["tags"]
    state = stack.finished(skipped["id"])
    assert state["name"] == "Completed"  # the page of a deployment hides states of other names
    assert stack.api(f"flow_runs/{skipped['id']}")["name"].endswith(", skipped")
    assert state["message"].startswith("skipped, because it is ") and "schedule.window" in state["message"]
    assert not (stack.home / "runs" / "closed").exists()
    stack.wait_for("Style closed is changed.", patience_seconds=10)

    run = by_form(stack, browser, found["closed"]["id"])
    assert stack.finished(run["id"])["name"] == "Completed"
    assert list(stack.home.glob("runs/closed/*/release/report.html"))


def by_form(stack: RunningStack, browser: Browser, deployment_id: str) -> dict[str, Any]:
    """Start a style from its page's form, untouched."""
    page = browser.new_context(viewport={"width": 1280, "height": 1000}).new_page()
    page.goto(f"{stack.prefect}/v2/login")
    page.get_by_role("textbox").first.fill(stack.credentials.login)
    page.keyboard.press("Enter")
    page.wait_for_url("**/dashboard**")
    page.goto(f"{stack.prefect}/v2/deployments/deployment/{deployment_id}/run")
    expect(page.get_by_text("steps (Optional)")).to_be_visible()
    with page.expect_response("**/create_flow_run") as answer:
        page.get_by_role("button", name="Submit").click()
    run: dict[str, Any] = answer.value.json()
    page.context.close()
    return run
