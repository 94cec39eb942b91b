"""One deployment per style on a real Prefect server: files that come, change, break, go and come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule

from deployments.environment import PREFECT_FILE, PROJECT
from deployments.register import ensure_process_pool, load_deployments
from deployments.servers import flow_process
from deployments.styles import deployments as style_deployments
from deployments.styles import registration as style_registration
from deployments.styles.deployments import StyleDeployments
from deployments.styles.files import style_file
from sdlora.config import load_config
from tasks.form import STYLE
from tests.settings import make_style

NIGHTLY = {"cron": "0 3 * * *", "timezone": "Europe/Berlin", "window": "20:00-07:00", "tags": ["art"]}


@dataclass
class Followed:
    """A state folder whose styles are registered, as `sdlora up` does it."""

    home: Path
    images: Path
    deployments: StyleDeployments
    said: list[str]

    def make(self, name: str, **sections: Any) -> Path:
        return make_style(self.home, name, self.images, **sections)

    def follow(self) -> list[str]:
        """Poll until a change that is there is taken up; return what was said."""
        before = len(self.said)
        for _ in range(3):
            self.deployments.follow()
        return self.said[before:]


@pytest.fixture
def start(monkeypatch, tmp_path) -> Iterator[Callable[..., Followed]]:
    monkeypatch.setenv("SDLORA_HOME", str(tmp_path))
    monkeypatch.setenv("SDLORA_PROJECT", str(PROJECT))
    ensure_process_pool("local")
    delete_all()  # what other tests left on their common server
    home, images = tmp_path / "home", tmp_path / "images"
    images.mkdir()

    def started(config_file: Path | None = None) -> Followed:
        (template,) = (one for one in load_deployments(PREFECT_FILE, PROJECT, {}) if one.name == "retrain/retrain")
        said: list[str] = []
        deployments = StyleDeployments(home, template, config_file, said.append)
        deployments.register_all()
        return Followed(home, images, deployments, said)

    make_style(home, "comics", images, lora={"rank": 4}, schedule=NIGHTLY)
    make_style(home, "props", images)
    yield started
    delete_all()


def delete_all() -> None:
    with get_client(sync_client=True) as client:
        for one in client.read_deployments():
            client.delete_deployment(one.id)


def of(name: str) -> DeploymentResponse:
    with get_client(sync_client=True) as client:
        return client.read_deployment_by_name(f"retrain/{name}")


def names() -> set[str]:
    with get_client(sync_client=True) as client:
        return {one.name for one in client.read_deployments()}


def rewrite(file: Path, **sections: Any) -> None:
    settings = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**settings, **sections}))


def test_each_style_has_a_deployment_with_what_its_file_says(start):
    followed = start()
    assert names() == {"comics", "props"}
    assert followed.said == ["  styles: comics, props"]
    comics, file = of("comics"), style_file(followed.home, "comics")
    parameters = dict(comics.parameters)
    assert parameters.keys() == {"name", "sources", "rank", "advanced"}
    assert STYLE.config(parameters.pop("advanced"), **parameters) == load_config(file)
    (schedule,) = comics.schedules
    assert schedule.schedule == CronSchedule(cron="0 3 * * *", timezone="Europe/Berlin") and schedule.active
    assert comics.tags == ["art"] and not comics.paused
    assert str(file) in comics.description and "20:00-07:00 (Europe/Berlin)" in comics.description
    assert (comics.entrypoint, comics.work_pool_name) == ("flows/retrain.py:retrain", "local")
    assert "steps" in comics.parameter_openapi_schema["properties"]
    assert of("props").schedules == [] and of("props").tags == []


def test_a_style_added_or_changed_is_taken_up_and_the_others_are_not_touched(start):
    followed = start()
    before = of("comics")
    followed.make("icons", schedule={"cron": "30 1 * * *"})
    assert followed.follow() == ["Style icons is taken up."]
    assert of("icons").schedules[0].schedule.cron == "30 1 * * *"
    rewrite(style_file(followed.home, "props"), training={"steps": 7}, schedule={"cron": "0 5 * * *"})
    assert followed.follow() == ["Style props is changed."]
    assert of("props").parameters["steps"] == 7 and len(of("props").schedules) == 1
    rewrite(style_file(followed.home, "props"), schedule=None)
    followed.follow()
    assert of("props").schedules == []
    assert of("comics").updated == before.updated
    assert followed.follow() == []


def test_runs_start_where_sdlora_is_installed_now_although_no_file_changed(start, tmp_path, monkeypatch):
    start()
    place = tmp_path / "another place"
    monkeypatch.setenv("SDLORA_PROJECT", str(place))
    monkeypatch.setattr(flow_process, "command", lambda: f"{place}/python {place}/flow_process.py")
    start()
    for style in ("comics", "props"):
        assert of(style).job_variables["command"] == f"{place}/python {place}/flow_process.py"
        (step,) = of(style).pull_steps
        assert step["prefect.deployments.steps.set_working_directory"]["directory"] == str(place)


def test_a_file_that_is_being_written_is_left_until_it_rests(start):
    followed = start()
    file = followed.make("icons")
    followed.deployments.follow()
    with file.open("a") as stream:
        stream.write("training:\n  steps: 9\n")
    followed.deployments.follow()
    assert "icons" not in names()
    followed.deployments.follow()
    assert of("icons").parameters["steps"] == 9


def test_a_removed_style_is_paused_and_a_returned_one_goes_on(start):
    followed = start()
    file = style_file(followed.home, "comics")
    file.rename(file.with_suffix(".aside"))
    assert followed.follow() == ["Style comics has no file any more: its deployment is paused."]
    assert of("comics").paused and "was removed" in of("comics").description
    assert "comics" in names() and not of("props").paused
    assert start().said == ["  styles: props"]
    file.with_suffix(".aside").rename(file)
    assert followed.follow() == ["Style comics is taken up."]
    assert not of("comics").paused and str(file) in of("comics").description
    assert len(of("comics").schedules) == 1


def test_a_broken_style_keeps_its_last_good_settings_and_says_so_in_both_places(start):
    followed = start()
    file = style_file(followed.home, "comics")
    whole = file.read_text()
    file.write_text(whole.replace("rank: 4", "rank: none"))
    rewrite(style_file(followed.home, "props"), training={"steps": 7})
    told = followed.follow()
    assert told[0] == "Style props is changed."
    assert "comics.yaml" in told[1] and "lora.rank" in told[1] and len(told) == 2
    broken = of("comics")
    assert broken.parameters["rank"] == 4 and len(broken.schedules) == 1 and not broken.paused
    assert "is broken" in broken.description and "lora.rank" in broken.description
    assert of("props").parameters["steps"] == 7
    again = start()
    assert again.said[0] == "  styles: props" and "lora.rank" in again.said[1]
    assert of("comics").updated == broken.updated
    file.write_text(whole)
    assert followed.follow() == ["Style comics is taken up."]
    assert "is broken" not in of("comics").description


def test_a_removed_style_that_comes_back_broken_stays_paused_until_it_is_whole(start):
    followed = start()
    file = style_file(followed.home, "comics")
    whole = file.read_text()
    file.unlink()
    followed.follow()
    file.write_text("name: [")
    followed.follow()
    assert of("comics").paused
    file.write_text(whole)
    followed.follow()
    assert not of("comics").paused


def test_what_a_person_paused_on_the_page_stays_paused_until_the_times_change(start):
    followed = start()
    with get_client(sync_client=True) as client:
        comics = of("comics")
        client.update_deployment_schedule(comics.id, comics.schedules[0].id, active=False)
        client.create_deployment_schedules(comics.id, [(CronSchedule(cron="0 6 * * *", timezone="UTC"), True)])
        client.update_deployment(of("props").id, DeploymentUpdate(paused=True))
    followed = start()
    assert {one.schedule.cron: one.active for one in of("comics").schedules} == {"0 3 * * *": False, "0 6 * * *": True}
    assert of("props").paused
    for name in ("comics", "props"):
        rewrite(style_file(followed.home, name), training={"steps": 7})
    followed.follow()
    assert of("comics").parameters["steps"] == 7
    assert {one.schedule.cron: one.active for one in of("comics").schedules} == {"0 3 * * *": False, "0 6 * * *": True}
    assert of("props").paused
    rewrite(style_file(followed.home, "comics"), schedule={**NIGHTLY, "cron": "0 4 * * *"})
    followed.follow()
    assert {one.schedule.cron: one.active for one in of("comics").schedules} == {"0 4 * * *": True, "0 6 * * *": True}


def test_the_style_of_config_is_one_of_them_and_a_second_of_its_name_is_refused(start, tmp_path):
    elsewhere = tmp_path / "mine.yaml"
    elsewhere.write_text(yaml.safe_dump({"name": "mine", "training": {"steps": 3}}))
    followed = start(elsewhere)
    assert followed.said == ["  styles: comics, mine, props"]
    second = followed.make("mine", training={"steps": 4})
    (told,) = followed.follow()
    assert str(second) in told and str(elsewhere) in told and "two styles of the name mine" in told
    assert of("mine").parameters["steps"] == 3
    elsewhere.write_text(yaml.safe_dump({"name": "other"}))
    assert followed.follow() == ["Style mine is changed.", "Style other is taken up."]
    assert of("mine").parameters["steps"] == 4 and not of("mine").paused
    elsewhere.write_text("name: [")
    assert "mine.yaml" in followed.follow()[-1]
    assert not of("other").paused and "is broken" in of("other").description


def test_a_style_with_the_name_of_the_deployment_for_any_style_is_refused(start, tmp_path):
    elsewhere = tmp_path / "elsewhere.yaml"
    elsewhere.write_text("name: retrain\n")
    followed = start(elsewhere)
    assert followed.said[0] == "  styles: comics, props" and "elsewhere.yaml: name: retrain" in followed.said[1]
    elsewhere.unlink()
    followed.make("retrain")
    (told,) = followed.follow()
    assert "name: retrain is the name of the deployment for any style" in told
    assert "retrain" not in names()


def test_a_server_that_is_away_is_asked_again(start, monkeypatch):
    followed = start()
    followed.make("icons")
    monkeypatch.setattr(style_deployments, "_RETRY_SECONDS", 0.0)
    with monkeypatch.context() as away:
        away.setattr(style_deployments, "get_client", lambda **_: (_ for _ in ()).throw(httpx.ConnectError("away")))
        assert followed.follow() == ["Styles are not registered yet: away. It is tried again."]
    assert followed.follow() == ["Style icons is taken up."]
    assert "icons" in names()


def test_a_style_that_the_server_refuses_stops_no_other(start, monkeypatch):
    followed = start()
    for name in ("comics", "props"):
        rewrite(style_file(followed.home, name), training={"steps": 7})
    refusal = httpx.HTTPStatusError("too long", request=httpx.Request("POST", "/"), response=httpx.Response(422))
    register = style_deployments.register

    def refuse_comics(style, *more):
        if style.name == "comics":
            raise refusal
        register(style, *more)

    with monkeypatch.context() as refused:
        refused.setattr(style_deployments, "register", refuse_comics)
        told = followed.follow()
    assert told[0] == "Style props is changed." and len(told) == 2
    assert "comics.yaml: the Prefect server refused its deployment: too long" in told[1]
    assert of("props").parameters["steps"] == 7 and "steps" not in of("comics").parameters


def test_a_file_that_changes_all_the_time_is_taken_up_too(start, monkeypatch):
    followed = start()
    file = style_file(followed.home, "props")
    for steps in (7, 8, 9):
        rewrite(file, training={"steps": steps})
        followed.deployments.follow()
    assert "steps" not in of("props").parameters
    monkeypatch.setattr(style_deployments, "_LONGEST_WAIT_SECONDS", 0.0)
    rewrite(file, training={"steps": 10})
    followed.deployments.follow()
    assert of("props").parameters["steps"] == 10


def test_of_several_styles_a_start_writes_only_what_changed(start, tmp_path, monkeypatch):
    monkeypatch.setattr(style_registration, "_PAGE", 3)  # the server lists them in pages
    for number in range(8):
        make_style(tmp_path / "home", f"style-{number:02}", tmp_path / "images")
    start()
    before = {name: of(name).updated for name in ("style-07", "style-03")}
    rewrite(style_file(tmp_path / "home", "style-07"), training={"steps": 2})
    start()
    assert of("style-07").updated > before["style-07"] and of("style-03").updated == before["style-03"]
