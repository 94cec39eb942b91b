"""A page of another origin in a real browser achieves nothing while the owner is logged in; the owner's own work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.stack import RunningStack, request

# What a page can try: to be answered (cors), not to be asked beforehand (no-cors, text/plain), and to send what the
# browser knows of the server (credentials). It returns all that it could read.
ATTACK = """
async ([prefect, mlflow, marker]) => {
  const read = [];
  const call = async (method, url, body) => {
    let answer = null;
    for (const how of [
      {mode: "cors", credentials: "omit", headers: {"Content-Type": "application/json"}},
      {mode: "cors", credentials: "include", headers: {"Content-Type": "text/plain"}},
      {mode: "no-cors", credentials: "include", headers: {"Content-Type": "text/plain"}},
    ]) {
      try {
        const reply = await fetch(url, {method, ...how, body: body && JSON.stringify(body)});
        if (reply.ok) { read.push(url); answer = await reply.json(); }
      } catch (error) {}
    }
    return answer;
  };
  const flow = await call("POST", prefect + "/api/flows/", {name: "attack"});
  const deployment = await call("POST", prefect + "/api/deployments/", {
    name: "attack", flow_id: flow ? flow.id : "7b1d3f5e-0000-4000-8000-000000000000", work_pool_name: "local",
    entrypoint: "flows/collect.py:collect",
    pull_steps: [{"prefect.deployments.steps.run_shell_script": {script: "touch " + marker}}],
  });
  const known = await call("GET", prefect + "/api/deployments/name/retrain/retrain");
  const id = deployment ? deployment.id : known ? known.id : "7b1d3f5e-0000-4000-8000-000000000000";
  await call("POST", prefect + "/api/deployments/" + id + "/create_flow_run", {});
  for (const api of ["/api/2.0/mlflow", "/ajax-api/2.0/mlflow"]) {
    await call("POST", mlflow + api + "/experiments/create", {name: "attack"});
    await call("POST", mlflow + api + "/experiments/delete", {experiment_id: "0"});
    await call("GET", mlflow + api + "/experiments/get?experiment_id=0");
  }
  await call("PUT", mlflow + "/ajax-api/3.0/mlflow/assistant/config", {});
  const form = document.createElement("form");
  form.method = "POST"; form.enctype = "text/plain"; form.target = "frame";
  form.action = mlflow + "/ajax-api/2.0/mlflow/experiments/create";
  const field = document.createElement("input");
  field.name = '{"name": "attack", "x": "'; field.value = '"}';
  form.append(field); document.body.append(form); form.submit();
  return read;
}
"""


@pytest.fixture
def other_origin(tmp_path: Path) -> Iterator[str]:
    """A page on another port of this machine, as another user could serve it."""
    (tmp_path / "index.html").write_text('<iframe name="frame"></iframe>')
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(tmp_path)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/index.html"
    server.shutdown()
    server.server_close()


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Tests say what they have to say by failing."""


@pytest.fixture
def logged_in(browser: Browser, running_stack: RunningStack) -> Iterator[BrowserContext]:
    """A browser in which the owner has given both passwords."""
    owner = running_stack.credentials
    context = browser.new_context(http_credentials={"username": owner.user, "password": owner.password})
    page = context.new_page()
    _log_in_to_prefect(page, running_stack)
    page.goto(running_stack.mlflow)
    expect(page.get_by_text("Experiments").first).to_be_visible()
    page.close()
    yield context
    context.close()


def _log_in_to_prefect(page: Page, stack: RunningStack) -> None:
    page.goto(f"{stack.prefect}/v2/deployments")
    page.locator("input[type=password]").fill(stack.credentials.login)
    page.keyboard.press("Enter")
    expect(page.get_by_text("retrain").first).to_be_visible()


def what_there_is(stack: RunningStack) -> dict[str, object]:
    _, found = request(
        f"{stack.mlflow}/api/2.0/mlflow/experiments/search?max_results=100&view_type=ALL",
        {"Authorization": stack.basic},
    )
    return {
        "flows": stack.api("flows/count", {}),
        "deployments": stack.api("deployments/count", {}),
        "runs": stack.api("flow_runs/count", {"deployments": {"name": {"any_": ["attack", "retrain"]}}}),
        "experiments": [(one["name"], one["lifecycle_stage"]) for one in json.loads(found)["experiments"]],
    }


def test_a_page_of_another_origin_reads_and_changes_nothing(
    logged_in: BrowserContext, running_stack: RunningStack, other_origin: str, tmp_path: Path
):
    before = what_there_is(running_stack)
    marker = tmp_path / "broken-in"
    page = logged_in.new_page()
    page.goto(other_origin)
    assert page.evaluate(ATTACK, [running_stack.prefect, running_stack.mlflow, str(marker)]) == []
    page.wait_for_timeout(2_000)  # the form's answer, and a worker's look for new runs
    assert what_there_is(running_stack) == before
    assert not marker.exists()


def test_prefect_asks_once_in_both_of_its_pages(browser: Browser, running_stack: RunningStack):
    context = browser.new_context()
    page = context.new_page()
    _log_in_to_prefect(page, running_stack)
    for address in ("/v2/runs", "/runs", "/v2/deployments"):
        page.goto(running_stack.prefect + address)
        page.wait_for_load_state("networkidle")
        expect(page.locator("input[type=password]")).to_have_count(0)
    context.close()


def test_a_wrong_password_shows_nothing(browser: Browser, running_stack: RunningStack):
    context = browser.new_context(http_credentials={"username": "sdlora", "password": "wrong"})
    page = context.new_page()
    page.goto(f"{running_stack.prefect}/v2/deployments")
    page.locator("input[type=password]").fill("sdlora:wrong")
    page.keyboard.press("Enter")
    page.wait_for_timeout(2_000)
    assert page.get_by_text("retrain").count() == 0
    reply = page.goto(running_stack.mlflow)
    assert reply is not None
    assert reply.status == 401
    context.close()


def test_a_link_from_another_page_opens_mlflow(logged_in: BrowserContext, running_stack: RunningStack, other_origin):
    page = logged_in.new_page()
    page.goto(other_origin)
    page.evaluate("(url) => { location.href = url }", running_stack.mlflow)
    expect(page.get_by_text("Experiments").first).to_be_visible()
