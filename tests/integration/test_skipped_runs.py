"""Runs of the clock that end before they do anything: `sdlora styles` says why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.cli.app import app
from deployments.styles.files import load_style
from flows.retrain import retrain
from sdlora.processes.identity import ProcessIdentity
from sdlora.store.image_store import ImageStore
from sdlora.store.tickets import Request, new_row
from tasks.results import RunRef
from tasks.waiting import daily_limit, outcomes, skipping
from tasks.waiting.queue import join_queue_for_run
from tests.settings import make_style, run_flow
from tests.tiny import draw_images
from tests.waiting import pass_midnight


@pytest.fixture(autouse=True)
def _one_day() -> None:
    pass_midnight(120)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (daily_limit, outcomes, skipping):
        monkeypatch.setattr(module, "asked_by", lambda: "clock")
    return tmp_path / "home"


def listed(home: Path) -> str:
    done = CliRunner().invoke(app, ["styles", "--home", str(home)])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_run_outside_its_hours_is_the_last_outcome_with_its_reason(home, tmp_path):
    hour = datetime.now(UTC).hour
    window = f"{(hour + 12) % 24:02}:00-{(hour + 13) % 24:02}:00"
    make_style(home, "comics", draw_images(tmp_path / "images", 3), schedule={"window": window})
    assert run_flow(retrain, load_style(home, "comics").config, home) is None
    output = listed(home)
    assert "comics: last run skipped, because it is " in output
    assert f"outside the hours of schedule.window, {window}" in output


def test_a_run_whose_style_has_trained_long_enough_today_is_the_last_outcome_too(home, tmp_path):
    make_style(home, "comics", draw_images(tmp_path / "images", 3), schedule={"max_hours_a_day": 0.001})
    with ImageStore.open(home) as store, store.write() as session:
        row = new_row(Request("comics"), ProcessIdentity.of_this_process(), token="t")
        row.taken_at, row.ended_at, row.state = *trained_today(), "done"
        session.add(row)
    config = load_style(home, "comics").config
    assert isinstance(join_queue_for_run.fn(config, RunRef(digest="d", folder=home), home), str)
    assert "comics: last run skipped, because the style has trained 0.001 hours today" in listed(home)


def trained_today() -> tuple[datetime, datetime]:
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight, midnight + timedelta(seconds=10)
