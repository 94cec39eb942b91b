"""`sdlora up` registers what `prefect deploy --all` would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL

from deployments.environment import PREFECT_FILE, PROJECT
from deployments.register import ensure_process_pool, load_deployments
from deployments.servers import flow_process
from sdlora.config import load_config, resolve
from sdlora.core.errors import ConfigError
from sdlora.models.files.sources import load_base_model
from sdlora.training import defaults
from tasks.form import STYLE
from tests.families import build
from tests.tiny import tiny_base_model

DEPLOYMENTS = ("retrain", "decide", "promote", "reject", "rollback", "collect", "generate", "pretrain", "compare")
# What the server adds by itself, or what only one of the two knows. Prefect's command reads the version from git.
OF_THE_SERVER = {"id", "created", "updated", "created_by", "updated_by", "last_polled", "status"}
OF_THE_COMMAND = {"version", "version_id", "version_info", "branch", "base", "root", "labels"}


def registered() -> dict[str, dict]:
    """All deployments of the file as the server has them, without what tells one registration from another."""
    with get_client(sync_client=True) as client:
        found = [client.read_deployment_by_name(f"{name}/{name}") for name in DEPLOYMENTS]
    told = {one.name: one.model_dump(mode="json", exclude=OF_THE_SERVER | OF_THE_COMMAND) for one in found}
    for one in told.values():
        for box in one["parameter_openapi_schema"]["properties"].values():
            if box.get("default", ...) is None:  # `sdlora up` takes it out, so that a box may be left empty
                del box["default"]
        for schedule in one["schedules"]:
            for key in (*OF_THE_SERVER, "deployment_id"):
                schedule.pop(key, None)
        if limit := one["global_concurrency_limit"]:
            one["global_concurrency_limit"] = limit["limit"]  # its name holds the deployment's id
    return told


def delete_all() -> None:
    with get_client(sync_client=True) as client:
        for one in client.read_deployments():
            client.delete_deployment(one.id)


@pytest.fixture
def _variables(monkeypatch, tmp_path):
    monkeypatch.setenv("SDLORA_HOME", str(tmp_path))
    monkeypatch.setenv("SDLORA_PROJECT", str(PROJECT))
    ensure_process_pool("local")
    yield
    delete_all()


@pytest.mark.usefixtures("_variables")
def test_it_registers_what_prefects_own_command_does_and_twice_changes_nothing():
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(PREFECT_FILE)]
    environment = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value()}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    by_hand = registered()
    assert all(deployment.pop("job_variables") == {} for deployment in by_hand.values())
    delete_all()
    for _ in range(2):
        for deployment in load_deployments(PREFECT_FILE, PROJECT, {}):
            deployment.register()
        found = registered()
        # Runs start by a program of ours, which waits for servers that are away; the command starts Prefect's own.
        programs = [deployment.pop("job_variables") for deployment in found.values()]
        assert programs == [{"command": flow_process.command()}] * len(found)
        assert found == by_hand


@pytest.mark.usefixtures("_variables")
def test_parameters_are_laid_over_those_of_the_file_and_empty_boxes_have_no_default():
    wanted = {"retrain/retrain": {"name": "mine", "steps": 3}}
    for deployment in load_deployments(PREFECT_FILE, PROJECT, wanted):
        deployment.register()
    assert registered()["retrain"]["parameters"] == {"name": "mine", "steps": 3}
    assert registered()["collect"]["parameters"] == {}
    for deployment in load_deployments(PREFECT_FILE, PROJECT, {"retrain/retrain": {"name": "mine"}}):
        deployment.register()
    assert registered()["retrain"]["parameters"] == {"name": "mine"}  # what left the file leaves the form
    with get_client(sync_client=True) as client:
        form = client.read_deployment_by_name("retrain/retrain").parameter_openapi_schema["properties"]
    assert "default" not in form["steps"] and "default" in form["preset"]


@pytest.mark.usefixtures("_variables")
def test_for_bases_of_each_family_what_the_server_stores_resolves_to_what_the_file_does(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(defaults, "SMALL_BASE_PX", 1)  # tiny bases, taken for large ones
    for family in ("sd1", "sdxl", "sd3", "flux"):
        folder = tiny_base_model(tmp_path / family) if family == "sd1" else build(family, tmp_path / family)
        file = tmp_path / f"{family}.yaml"
        file.write_text(f"base_model: {{source: {folder.name}}}\ntraining: {{precision: fp32, warmup_steps: }}\n")
        config = load_config(file)
        (retrain,) = [
            one
            for one in load_deployments(PREFECT_FILE, PROJECT, {"retrain/retrain": STYLE.parameters(config)})
            if one.name == "retrain/retrain"
        ]
        retrain.register()
        with get_client(sync_client=True) as client:
            stored = client.read_deployment_by_name("retrain/retrain").parameters
        again = STYLE.config(stored.pop("advanced"), **stored)
        base = load_base_model(config.base_model, tmp_path / "home")
        resolved = resolve(again, base, tmp_path / "home")
        assert resolved == resolve(config, base, tmp_path / "home")
        assert (resolved.training.learning_rate, resolved.training.batch_size) == (1e-4, 4)


@pytest.mark.usefixtures("_variables")
def test_a_schedule_that_left_the_file_goes_and_one_made_on_the_page_stays(tmp_path: Path):
    nightly = "schedules: [{cron: 0 3 * * *, slug: nightly}]"
    entry = "{name: mine, entrypoint: flows/collect.py:collect, work_pool: {name: local}, "
    file = tmp_path / "prefect.yaml"
    for schedules in (nightly, nightly, "schedules: []", "schedules: []"):
        file.write_text(f"pull: []\ndeployments: [{entry}{schedules}}}]")
        (mine,) = load_deployments(file, PROJECT, {})
        mine.register()
        with get_client(sync_client=True) as client:
            found = client.read_deployment_by_name("collect/mine")
            if len(found.schedules) == 1 and schedules == nightly:
                client.update_deployment_schedule(found.id, found.schedules[0].id, active=False)
                client.create_deployment_schedules(found.id, [(CronSchedule(cron="0 6 * * *", timezone="UTC"), True)])
            elif schedules == nightly:
                assert {(one.slug, one.active) for one in found.schedules} == {("nightly", False), (None, True)}
    assert [one.schedule.cron for one in found.schedules] == ["0 6 * * *"]


def test_what_would_be_left_out_is_refused_by_name(tmp_path: Path):
    file = tmp_path / "prefect.yaml"
    file.write_text("pull: []\ndeployments: [{name: mine, entrypoint: flows/collect.py:collect, triggers: []}]")
    with pytest.raises(ConfigError, match=r"prefect.yaml: deployment 'mine' has triggers"):
        load_deployments(file, PROJECT, {})


def test_the_work_pool_is_made_once():
    ensure_process_pool("made-by-test")
    ensure_process_pool("made-by-test")
    with get_client(sync_client=True) as client:
        pool = client.read_work_pool("made-by-test")
    assert pool.type == "process"
    assert "working_dir" in pool.base_job_template["variables"]["properties"]
