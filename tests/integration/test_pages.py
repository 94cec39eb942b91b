"""What people see while servers run: the run's page in Prefect, the version's page in MLflow, in a real browser."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import Artifact, FlowRun
from prefect.logging.handlers import APILogWorker

from deployments.servers.services import Service, free_port
from flows.generate import generate
from flows.retrain import retrain
from sdlora.config import PipelineConfig
from sdlora.core.errors import ConfigError
from sdlora.data.snapshot import latest_snapshot
from sdlora.store.image_store import ImageStore
from tasks.pages.run_names import add_to_name
from tasks.results import Release
from tasks.run_log import run_log
from tasks.tracking import Registry
from tests.prefect_records import artifacts_of, newest_run
from tests.settings import run_flow
from tests.waiting import PATIENCE_SECONDS


@dataclass(frozen=True)
class Shown:
    """One run of the loop, and what the server knows of it."""

    mlflow: str
    home: Path
    release: Release
    run: FlowRun
    log: list[str]
    artifacts: dict[str, Artifact]


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder)]
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = Service("The MLflow server", command, environment, folder / "server.log")
    try:
        server.wait_ready(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()


@pytest.fixture(scope="module")
def shown(mlflow_server: str, config: PipelineConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    home = tmp_path_factory.mktemp("shown") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
        release = run_flow(retrain, config, home)
        run = newest_run()
        yield Shown(mlflow_server, home, release, run, log_of(run), artifacts_of(run.id))


def log_of(run: FlowRun) -> list[str]:
    APILogWorker.drain_all(timeout=PATIENCE_SECONDS)
    with get_client(sync_client=True) as client:
        found = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])), limit=200)
    return [line.message for line in sorted(found, key=lambda line: line.timestamp)]


def test_the_log_of_a_run_tells_its_whole_story(shown):
    with ImageStore.open(shown.home) as store:
        snapshot = latest_snapshot(store.existing_dataset("shapes"))
    counts = f"{len(snapshot.train)} images to train on, {len(snapshot.held_out)} held out"
    expected = [
        r"Base model: tiny, digest [0-9a-f]{16}",
        r"images: 25 files, 25 new, 0 known, 0 not read",
        r"25 images judged now; of all 25 in dataset shapes, 24 are accepted, 1 rejected \(unreadable 1\)",
        r"rejected by unreadable: images/broken\.png: .+",
        rf"Snapshot {snapshot.digest[:16]}: {counts}",
        r"Since the snapshot before: 24 new, 0 gone, 0 with other captions",
        rf"Run {shown.release.run.digest}",
        r"There is no champion yet.+",
        r"step 6 of 6, loss [0-9.e-]+",
        r"The adapter of step \d of 6 was kept.+",
        r"candidate: KID [0-9.-]+ \[[0-9.-]+, [0-9.-]+\], FID .+",
        r"base: KID .+",
        r"The gate's answer: (worse|cannot tell)\. The candidate does not become the champion",
        r"(failed|in doubt): .+",
        r"Not promoted: shapes version 1",
        rf"Report: {shown.mlflow}/#/experiments/\d+/runs/[0-9a-f]+/artifacts/report\.html",
    ]
    story = iter(shown.log)
    for pattern in expected:  # in this order
        assert any(re.fullmatch(pattern, line) for line in story), (pattern, shown.log)
    assert len(shown.release.run.digest) == 64
    for reason in shown.release.reasons:
        assert {f"failed: {reason}", f"in doubt: {reason}", reason} & set(shown.log)


def test_a_run_is_named_by_style_time_and_new_images(shown):
    started = datetime.strptime(shown.run.name, "shapes, %Y-%m-%d %H:%M, 24 new images").astimezone()
    assert abs((started - shown.run.start_time).total_seconds()) < 60 + PATIENCE_SECONDS


def test_a_drawing_is_named_by_its_prompt_and_a_name_of_several_lines_stays_one(shown):
    with pytest.raises(ConfigError):
        generate("a red\nship", which="7", home=shown.home)
    assert re.fullmatch(r"a red\\nship by 7, \d{4}-\d\d-\d\d \d\d:\d\d", newest_run().name)


def test_a_name_that_cannot_be_changed_ends_no_run(monkeypatch):
    @task
    def step() -> str:
        monkeypatch.setattr(
            "tasks.pages.run_names.get_client", lambda **_: (_ for _ in ()).throw(ConnectionError("away"))
        )
        add_to_name("24 new images")
        return "done"

    assert flow(step.fn)() == "done"
    assert any("could not be renamed" in line for line in log_of(newest_run()))


def test_the_lines_of_tasks_stay_where_prefects_own_are_silenced():
    @task
    def step() -> None:
        run_log().info("what a person reads")

    @flow
    def work() -> None:
        step()

    logger = logging.getLogger("prefect.task_runs")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        work()
    finally:
        logger.setLevel(before)
    log = log_of(newest_run())
    assert "what a person reads" in log
    assert log.count("Finished in state Completed()") == 1  # the flow's


def test_the_page_of_a_run_leads_to_the_server_and_to_no_file(shown):
    result = shown.artifacts["result"].data
    links = re.findall(r"\]\((?!data:)([^)]*)\)", result)
    assert len(links) == 4
    assert all(link.startswith(f"{shown.mlflow}/#/") for link in links)
    assert not any("file://" in str(one.data) for one in shown.artifacts.values())


def test_a_version_says_whether_it_is_better_and_shows_why(shown):
    registry = Registry(shown.home)
    version = registry.client.get_model_version("shapes", "1")
    assert version.description.startswith("**Not promoted.** ")
    assert f"get-artifact?path=images%2Fsummary.png&run_uuid={version.run_id}" in version.description
    assert f"/runs/{version.run_id}/artifacts/report.html" in version.description
    assert "| KID |" in version.description
    assert len(version.description) <= 5000
    assert len(version.tags) == 5
    assert json.loads(version.tags["sdlora"])["run_digest"] == shown.release.run.digest
    note = registry.client.get_run(version.run_id).data.tags["mlflow.note.content"]
    assert note.startswith("**Not promoted:** [version 1](#/models/shapes/versions/1).")
    assert "No champion yet" in registry.client.get_registered_model("shapes").description


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    yield context.new_page()
    context.close()


def test_a_browser_shows_the_picture_on_the_versions_page_and_opens_the_report_from_it(shown, page):
    page.goto(f"{shown.mlflow}/#/models/shapes/versions/1")
    picture = page.locator("img[src^='get-artifact']")
    picture.wait_for()
    page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=picture.element_handle())
    assert 200 < picture.evaluate("image => image.naturalWidth") <= 640
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Report", exact=True).click()
    report = opened.value.frame_locator("iframe").get_by_role("heading", name="shapes, version 1")
    report.wait_for()


def test_a_browser_opens_the_report_from_the_address_on_the_run_page(shown, page):
    (address,) = re.findall(r"\[Report\]\(([^)]*)\)", shown.artifacts["result"].data)
    page.goto(address)
    report = page.frame_locator("iframe").get_by_role("heading", name="shapes, version 1")
    report.wait_for()
