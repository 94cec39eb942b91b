"""MLflow of `sdlora up` answers its owner alone, and of the pages in a browser only its own."""

from __future__ import annotations

import base64
import json
import stat
import subprocess
import sys
import urllib.request

import pytest

from tests.stack import PROJECT, RunningStack, request

ELSEWHERE = "http://127.0.0.1:9"  # MLflow itself lets every port of this machine pass
READS = (
    ("GET", "/"),
    ("GET", "/api/2.0/mlflow/experiments/search?max_results=10"),
    ("GET", "/ajax-api/2.0/mlflow/experiments/get?experiment_id=0"),
    ("GET", "/get-artifact?path=a&run_uuid=b"),
    ("GET", "/model-versions/get-artifact?path=a&name=b&version=1"),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts?path=a"),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts/a"),
    ("GET", "/ajax-api/2.0/mlflow-artifacts/artifacts/a"),
    ("GET", "/ajax-api/2.0/mlflow/metrics/get-history-bulk?run_id=a&metric_key=b"),
    ("GET", "/ajax-api/3.0/mlflow/assistant/config"),
    ("GET", "/ajax-api/2.0/mlflow/users/current"),
    ("GET", "/api/2.0/mlflow/users/list"),
    ("POST", "/graphql"),
    ("POST", "/api/2.0/mlflow/runs/search"),
)
CHANGES = (
    ("POST", "/api/2.0/mlflow/experiments/create"),
    ("POST", "/ajax-api/2.0/mlflow/experiments/create"),
    ("POST", "/api/2.0/mlflow/experiments/delete"),
    ("POST", "/api/2.0/mlflow/registered-models/alias"),
    ("DELETE", "/api/2.0/mlflow/registered-models/delete"),
    ("POST", "/ajax-api/2.0/mlflow/upload-artifact?run_uuid=a&path=b"),
    ("PUT", "/api/2.0/mlflow-artifacts/artifacts/a"),
    ("PUT", "/ajax-api/2.0/mlflow-artifacts/artifacts/a"),
    ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/a"),
    ("POST", "/api/2.0/mlflow/users/create"),
    ("PATCH", "/api/2.0/mlflow/users/update-password"),
    ("POST", "/api/2.0/mlflow/webhooks"),
    ("POST", "/v1/traces"),
    ("POST", "/ajax-api/3.0/jobs/"),
    ("POST", "/ajax-api/3.0/mlflow/assistant/message"),
    ("PUT", "/ajax-api/3.0/mlflow/assistant/config"),
    ("POST", "/gateway/a/mlflow/invocations"),
)


def answers(stack: RunningStack, headers: dict[str, str]) -> set[int]:
    body = json.dumps({"name": "intruder", "experiment_id": "0"}).encode()
    return {
        request(stack.mlflow + path, headers, body if method != "GET" else None, method)[0]
        for method, path in READS + CHANGES
    }


def experiments(stack: RunningStack) -> dict[str, str]:
    _, found = request(
        f"{stack.mlflow}/api/2.0/mlflow/experiments/search?max_results=100&view_type=ALL",
        {"Authorization": stack.basic},
    )
    return {one["name"]: one["lifecycle_stage"] for one in json.loads(found)["experiments"]}


def basic(login: str) -> str:
    return "Basic " + base64.b64encode(login.encode()).decode()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": basic("sdlora:wrong")},
        {"Authorization": basic("admin:password1234")},
        {"Authorization": "Bearer sdlora"},
        {"Content-Type": "text/plain"},
        {"Sec-Fetch-Site": "none"},
    ],
    ids=str,
)
def test_no_call_is_answered_without_the_password(running_stack: RunningStack, headers):
    before = experiments(running_stack)
    assert answers(running_stack, headers) == {401}
    assert experiments(running_stack) == before


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": ELSEWHERE, "Content-Type": "text/plain"},
        {"Origin": "http://evil.example", "Content-Type": "application/json"},
        {"Origin": "null", "Content-Type": "application/x-www-form-urlencoded"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        {"Host": "rebound.example"},
    ],
    ids=str,
)
def test_not_even_the_owners_browser_is_answered_for_another_page(running_stack: RunningStack, headers):
    before = experiments(running_stack)
    assert answers(running_stack, {"Authorization": running_stack.basic, **headers}) == {403}
    assert experiments(running_stack) == before


def test_programs_pages_of_its_own_and_followed_links_are_answered_to_the_owner(running_stack: RunningStack):
    url = f"{running_stack.mlflow}/ajax-api/2.0/mlflow/experiments/get?experiment_id=0"
    followed = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    for headers in ({}, {"Origin": running_stack.mlflow}, {"Sec-Fetch-Site": "same-origin"}, followed):
        assert request(url, {"Authorization": running_stack.basic, **headers})[0] == 200
    assert request(url, {"Authorization": running_stack.basic, **followed}, b"{}", "POST")[0] == 403


def test_no_other_page_may_show_it_in_a_frame(running_stack: RunningStack):
    asked = urllib.request.Request(f"{running_stack.mlflow}/", headers={"Authorization": running_stack.basic})
    with urllib.request.urlopen(asked, timeout=60) as reply:
        assert reply.headers["X-Frame-Options"] == "SAMEORIGIN"


def test_its_health_is_public_and_says_nothing_else(running_stack: RunningStack):
    assert request(f"{running_stack.mlflow}/health") == (200, "OK")


def test_mlflows_own_client_works_with_the_variables_set(running_stack: RunningStack):
    command = [sys.executable, "-m", "mlflow", "experiments", "search"]
    for environment, code in (
        (running_stack.environment(), 0),
        (running_stack.environment() | {"MLFLOW_TRACKING_PASSWORD": "wrong"}, 1),
    ):
        done = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr


def test_what_holds_a_secret_or_a_record_is_for_the_owners_eyes(running_stack: RunningStack):
    home = running_stack.home
    for name in ("credentials.json", "up.lock", "services.json", "logs", "mlflow", "prefect"):
        assert stat.S_IMODE((home / name).stat().st_mode) & 0o077 == 0, name


def test_the_password_is_in_no_log_and_on_no_command_line(running_stack: RunningStack):
    password = running_stack.credentials.password
    assert password not in running_stack.said  # its output is no terminal
    for log in (running_stack.home / "logs").iterdir():
        assert password not in log.read_text(errors="replace"), log
    listed = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(running_stack.home) in listed
    assert password not in listed
