"""New data start runs: through `sdlora up`, exactly once whatever is killed, and by `reconcile`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from sqlalchemy import select

from benchmarks.arrivals import simulate
from deployments.environment import PREFECT_FILE, PROJECT
from deployments.register import ensure_process_pool, load_deployments
from deployments.servers.running import service_records
from deployments.servers.services import free_port
from deployments.styles.deployments import StyleDeployments
from deployments.styles.files import load_style
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.store.image_store import ImageStore
from sdlora.store.starts import KEY_PREFIX, ask_start, end_start, open_starts
from sdlora.store.tables.triggers import StartTable
from tasks.triggered import triggered_styles
from tasks.waiting import triggers
from tasks.waiting.triggers import registered_configs, start_ready
from tests.settings import make_style
from tests.stack import STYLE_FILE, request, start_stack
from tests.tiny import draw_images
from tests.waiting import PATIENCE_SECONDS

LATER = timedelta(hours=1)


@pytest.fixture
def home(monkeypatch, tmp_path) -> Path:
    """A state folder with one style whose images are collected and whose deployment is registered."""
    monkeypatch.setenv("SDLORA_HOME", str(tmp_path))
    monkeypatch.setenv("SDLORA_PROJECT", str(PROJECT))
    ensure_process_pool("local")
    home, images = tmp_path / "home", draw_images(tmp_path / "images", 12)
    name = f"t{uuid4().hex[:8]}"
    make_style(home, name, images, trigger={"min_new_images": 3, "quiet_minutes": 30})
    (template,) = (one for one in load_deployments(PREFECT_FILE, PROJECT, {}) if one.name == "retrain/retrain")
    StyleDeployments(home, template, None, lambda _: None).register_all()
    with ImageStore.open(home) as store:
        collect(store.dataset(name), str(images), DataConfig())
    return home


def style_of(home: Path) -> str:
    return next((home / "styles").glob("*.yaml")).stem


def runs_of(name: str) -> list[str]:
    with get_client(sync_client=True) as client:
        of_style = DeploymentFilter(name=DeploymentFilterName(any_=[name]))
        return [run.idempotency_key or "" for run in client.read_flow_runs(deployment_filter=of_style)]


def start(home: Path):
    config = load_style(home, style_of(home)).config
    return start_ready(triggered_styles([config]), home, datetime.now(UTC) + LATER)


@pytest.mark.parametrize("cut", ["before the server is asked", "after the server has answered"])
def test_a_start_that_is_cut_off_is_finished_by_the_next_call_with_one_run(home, monkeypatch, cut):
    real = triggers.record_created if cut.startswith("after") else triggers._create
    with monkeypatch.context() as patch:

        def killed(*_):
            raise KeyboardInterrupt

        patch.setattr(triggers, real.__name__, killed)
        with pytest.raises(KeyboardInterrupt):
            start(home)
    (first,) = start(home)
    (second,) = start(home)
    name = style_of(home)
    (key,) = runs_of(name)
    assert key.startswith(f"{KEY_PREFIX}{name}-")
    assert not first.is_ready and "a run was started at" in second.reason


def add_style(home: Path) -> str:
    """Add a second style that learns from the images of the first, and register it."""
    name = f"t{uuid4().hex[:8]}"
    trigger = {"min_new_images": 3, "quiet_minutes": 30}
    make_style(home, name, home.parent / "images", data={"dataset": style_of(home)}, trigger=trigger)
    (template,) = (one for one in load_deployments(PREFECT_FILE, PROJECT, {}) if one.name == "retrain/retrain")
    StyleDeployments(home, template, None, lambda _: None).register_all()
    return name


@pytest.mark.parametrize("refused", ["a new start", "a start that was cut off"])
def test_a_style_whose_run_the_server_refuses_stops_no_other(home, monkeypatch, refused):
    broken = style_of(home)
    configs = [load_style(home, name).config for name in (broken, add_style(home))]
    create = SyncPrefectClient.create_flow_run_from_deployment

    def refuse(client, deployment_id, **options):
        if client.read_deployment(deployment_id).name == broken:
            request = httpx.Request("POST", "http://server")
            raise httpx.HTTPStatusError("steps: 7 is wrong", request=request, response=httpx.Response(422))
        return create(client, deployment_id, **options)

    styles, now = triggered_styles(configs), datetime.now(UTC) + LATER
    if refused.endswith("cut off"):
        with ImageStore.open(home) as store, store.write() as session:
            ask_start(session, broken, "d" * 64, "s" * 64, 3, "cut off")
    monkeypatch.setattr(SyncPrefectClient, "create_flow_run_from_deployment", refuse)
    decisions = {decision.style: decision for decision in start_ready(styles, home, now)}
    assert len(runs_of(configs[1].name)) == 1 and decisions[configs[1].name].is_ready
    assert runs_of(broken) == [] and not decisions[broken].is_ready
    with ImageStore.open(home) as store, store.read() as session:
        assert {one.style for one in open_starts(session)} == {configs[1].name}
        outcomes = session.scalars(select(StartTable.outcome).where(StartTable.style == broken)).all()
    assert all("steps: 7 is wrong" in outcome for outcome in outcomes) and outcomes


def fail(home: Path) -> None:
    """End the open start as failed, and let the time until the next try pass."""
    with ImageStore.open(home) as store, store.write() as session:
        (begun,) = open_starts(session)
        end_start(session, begun, "Failed: the base model is not there")
        session.get_one(StartTable, begun.id).ended_at = datetime.now(UTC) - LATER


def test_a_corrected_setting_starts_a_run_once_its_deployment_has_it(home, monkeypatch):
    monkeypatch.setattr(triggers, "_follow", lambda *_: False)  # the runs end as `fail` says
    name = style_of(home)
    for _ in range(3):
        assert start(home)[0].is_ready
        fail(home)
    assert "given up after 3 runs" in start(home)[0].reason
    file = home / "styles" / f"{name}.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "evaluation": {"steps": 7}}))
    (early,) = start(home)  # the run would have the old settings
    assert not early.is_ready and "given up" in early.reason and early.look_again_at is not None
    (template,) = (one for one in load_deployments(PREFECT_FILE, PROJECT, {}) if one.name == "retrain/retrain")
    StyleDeployments(home, template, None, lambda _: None).register_all()
    assert start(home)[0].is_ready
    assert len(set(runs_of(name))) == 4


def test_reconcile_reads_the_styles_from_their_deployments_and_a_paused_one_starts_nothing(home):
    name = style_of(home)
    with get_client(sync_client=True) as client:
        (config,) = [one for one in registered_configs(client) if one.name == name]
        assert config == load_style(home, name).config
        client.pause_deployment(client.read_deployment_by_name(f"retrain/{name}").id)
        assert name not in [one.name for one in registered_configs(client)]
    (decision,) = start(home)
    assert not decision.is_ready and decision.reason == "its deployment is paused"
    assert runs_of(name) == []


def test_the_flow_reconcile_starts_what_is_ready_and_a_part_that_fails_stops_no_other(home, monkeypatch):
    from flows.reconcile import reconcile
    from tasks import reconcile as parts

    name = style_of(home)
    monkeypatch.setattr(parts, "crash_killed", lambda _: 1 / 0)
    found = reconcile(home=home)
    assert any("end dead runs failed: division by zero" in line for line in found)
    assert any(line.startswith(f"{name}: 12 new images; a run starts after") for line in found)
    assert (home / parts.GARBAGE_FILE).exists()


@pytest.mark.slow
def test_no_arrival_is_missed_and_none_starts_two_runs_while_the_watcher_is_killed(tmp_path):
    counts = simulate(tmp_path, arrivals=9, kill_every=3, seed=3)
    assert (counts.arrived, counts.kills, counts.missed, counts.twice) == (11, 3, 0, 0)


def arrive(port: int, token: str, body: object) -> int:
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Idempotency-Key": uuid4().hex,
        "X-Request-Time": str(time.time()),
    }
    return request(f"http://127.0.0.1:{port}/v1/arrived", headers, json.dumps(body).encode())[0]


@pytest.mark.slow
def test_images_copied_into_a_watched_folder_start_a_run_also_after_the_watcher_was_killed(tmp_path):
    drawn = draw_images(tmp_path / "drawn", 26, seed=5)
    images = tmp_path / "images"
    images.mkdir()
    port, home = free_port(), tmp_path / "home"
    file = home / "styles" / "mine.yaml"
    file.parent.mkdir(parents=True)
    settings = STYLE_FILE | {
        "data": {**STYLE_FILE["data"], "sources": [str(images)]},
        "trigger": {"min_new_images": 2, "quiet_minutes": 0.05},
    }
    file.write_text(yaml.safe_dump(settings))
    stack = start_stack(home, PROJECT / "deployments/configs/demo.yaml", {"SDLORA_RECEIVER_PORT": str(port)})
    try:
        stack.wait_for("Stop everything")
        for picture in sorted(drawn.glob("*.png"))[:24]:
            shutil.copy(picture, images)
        first = wait_for_run(stack, 1)
        assert stack.finished(first["id"])["type"] == "COMPLETED"

        os.kill(service_records(home)["watcher"]["pid"], signal.SIGKILL)
        for picture in sorted(drawn.glob("*.png"))[24:]:
            shutil.copy(picture, images)
        second = wait_for_run(stack, 2)
        stack.wait_for("The watcher")
        assert stack.finished(second["id"])["type"] == "COMPLETED"

        token = stack.credentials.receiver_token
        assert arrive(port, token, {"style": "mine"}) == 202
        assert arrive(port, token, {"style": "other"}) == 404
        assert arrive(port, stack.credentials.password, {"style": "mine"}) == 401
        headers = {"Authorization": f"Bearer {token}"}
        assert request(f"{stack.prefect}/api/flow_runs/filter", headers, b"{}")[0] == 401  # it opens nothing else
        time.sleep(5)
        assert len(runs(stack)) == 2
    finally:
        stack.process.terminate()
        stack.process.wait(PATIENCE_SECONDS)


def runs(stack) -> list[dict]:
    deployments = {"deployments": {"name": {"any_": ["mine"]}}}
    return stack.api("flow_runs/filter", {**deployments, "sort": "EXPECTED_START_TIME_ASC"})


def wait_for_run(stack, count: int, patience_seconds: float = 300) -> dict:
    deadline = time.monotonic() + patience_seconds
    while len(found := runs(stack)) < count:
        assert time.monotonic() < deadline, (stack.home / "logs/watcher.log").read_text()
        time.sleep(0.5)
    return found[count - 1]
