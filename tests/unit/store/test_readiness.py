"""When new data start a run: the decision, and what runs leave for it, on SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from sdlora.core.errors import ConfigError
from sdlora.core.schedule import ScheduleConfig
from sdlora.core.trigger import TriggerConfig
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.processes.identity import ProcessIdentity
from sdlora.store.dataset import Dataset
from sdlora.store.image_store import ImageStore
from sdlora.store.inputs import dataset_digest
from sdlora.store.ratings import rate
from sdlora.store.readiness import Readiness, TriggeredStyle, change_token, readiness
from sdlora.store.starts import RETRY_MINUTES, ask_start, end_start, open_starts, record_created, starts_of
from sdlora.store.style_records import record_dealt_with, record_left_alone, record_precision, style_record
from sdlora.store.tables.datasets import MemberTable
from sdlora.store.tickets import Request, new_row
from tests.stores import both_places
from tests.tiny import draw_images

TRIGGER = TriggerConfig(min_new_images=3, quiet_minutes=10, max_wait_hours=5)
SOON, LATER, MUCH_LATER = timedelta(minutes=1), timedelta(minutes=11), timedelta(hours=6)


def bring(dataset: Dataset, tmp_path: Any, count: int, seed: int = 0) -> None:
    folder = tmp_path / f"images-{seed}"
    draw_images(folder, count, seed=seed)
    collect(dataset, str(folder), DataConfig())


def asked(dataset: Dataset, after: timedelta, trigger: TriggerConfig = TRIGGER, **schedule: Any) -> Readiness:
    with dataset.store.read() as session:
        now = datetime.now(UTC) + after
        return readiness(session, TriggeredStyle("comics", dataset.name, trigger, ScheduleConfig(**schedule)), now)


def deal_with(dataset: Dataset) -> None:
    with dataset.store.write() as session:
        record_dealt_with(session, "comics", dataset_digest(session, dataset.name), "0" * 64)


def start(dataset: Dataset, end: str | None = None, settings: str = "") -> None:
    with dataset.store.write() as session:
        digest = dataset_digest(session, dataset.name)
        begun = ask_start(session, "comics", digest, settings, 3, "3 new images")
        record_created(session, begun, "run-1")
        if end:
            end_start(session, begun, end)


@both_places
def test_enough_images_start_a_run_after_the_quiet_time_and_fewer_after_the_longest_wait(dataset, tmp_path):
    assert asked(dataset, SOON).reason == "no image has come yet"
    bring(dataset, tmp_path, 2)
    few = asked(dataset, LATER)
    assert not few.is_ready and few.reason == "2 new images; 3 new images start a run" and few.new_images == 2
    assert asked(dataset, MUCH_LATER).reason == "2 new images, and the first news came 5 hours ago"
    assert asked(dataset, MUCH_LATER).is_ready
    bring(dataset, tmp_path, 1, seed=1)
    early = asked(dataset, SOON)
    assert not early.is_ready and "after 10 minutes without further ones" in early.reason
    assert early.look_again_at is not None and early.look_again_at > datetime.now(UTC) + timedelta(minutes=5)
    ready = asked(dataset, LATER)
    assert ready.is_ready and ready.reason == "3 new images"


@both_places
def test_what_a_run_dealt_with_is_no_news_and_a_rating_is_news_without_an_image(dataset, tmp_path):
    bring(dataset, tmp_path, 3)
    deal_with(dataset)
    assert asked(dataset, MUCH_LATER).reason == "nothing new"
    with dataset.store.write() as session:
        sha256 = session.query(MemberTable).first().image.sha256
        before = change_token(session)
        rate(session, sha256, 5, "ann")
    with dataset.store.read() as session:
        assert change_token(session) != before
    # The images count as new: the snapshot that the record names is not in this database.
    assert asked(dataset, SOON).reason != "nothing new"


@both_places
def test_the_end_of_a_run_that_has_dealt_with_its_images_is_looked_for_until_it_is_recorded(dataset, tmp_path):
    bring(dataset, tmp_path, 3)
    start(dataset)
    deal_with(dataset)  # a moment before Prefect has the end of the run
    decision = asked(dataset, SOON)
    assert decision.reason == "nothing new"
    assert decision.look_again_at is not None
    assert decision.look_again_at < datetime.now(UTC) + SOON + timedelta(seconds=10)
    with dataset.store.write() as session:
        end_start(session, open_starts(session)[0], "Completed")
    assert asked(dataset, SOON).look_again_at is None


def test_rejected_and_removed_images_start_nothing(dataset, tmp_path):
    bring(dataset, tmp_path, 4)
    with dataset.store.write() as session:
        first, second, *_ = session.query(MemberTable).all()
        first.verdict = "rejected"
        second.removed_at = datetime.now(UTC)
    assert asked(dataset, LATER).new_images == 2
    assert not asked(dataset, LATER).is_ready


def test_one_run_is_started_for_the_same_news_and_a_failed_one_is_tried_three_times(dataset, tmp_path):
    bring(dataset, tmp_path, 3)
    start(dataset)
    assert "a run was started at" in asked(dataset, LATER).reason
    with dataset.store.write() as session:
        digest = dataset_digest(session, dataset.name)
        end_start(session, starts_of(session, "comics", digest, "")[0], "Failed")
    soon = asked(dataset, SOON)
    assert not soon.is_ready and "did not deal with them (Failed)" in soon.reason
    assert asked(dataset, timedelta(minutes=RETRY_MINUTES[0] + 1)).is_ready
    start(dataset, end="Failed")
    assert not asked(dataset, timedelta(minutes=RETRY_MINUTES[0] + 1)).is_ready
    start(dataset, end="Failed")
    given_up = asked(dataset, MUCH_LATER)
    assert given_up.is_given_up and "given up after 3 runs" in given_up.reason
    with dataset.store.read() as session:
        keys = {one.key for one in starts_of(session, "comics", given_up.data_digest, "")}
    assert len(keys) == 3
    bring(dataset, tmp_path, 1, seed=1)
    assert asked(dataset, LATER).is_ready  # something changed


def with_settings(dataset: Dataset, settings_digest: str) -> Readiness:
    style = TriggeredStyle("comics", dataset.name, TRIGGER, settings_digest=settings_digest)
    with dataset.store.read() as session:
        return readiness(session, style, datetime.now(UTC) + LATER)


@pytest.mark.parametrize("end", ["Failed", "Cancelled"])
def test_images_that_were_given_up_are_tried_again_after_a_change_of_the_settings(dataset, tmp_path, end):
    bring(dataset, tmp_path, 3)
    for _ in range(3 if end == "Failed" else 1):
        start(dataset, end, settings="a" * 64)
    assert not with_settings(dataset, "a" * 64).is_ready
    corrected = with_settings(dataset, "b" * 64)
    assert corrected.is_ready and corrected.reason == "3 new images"
    for _ in range(3 if end == "Failed" else 1):
        start(dataset, end, settings="b" * 64)  # no key is used twice
    assert not with_settings(dataset, "b" * 64).is_ready
    assert not with_settings(dataset, "a" * 64).is_ready  # the old settings have failed already


def test_images_that_a_run_left_alone_stay_news_for_other_settings(dataset, tmp_path):
    bring(dataset, tmp_path, 3)
    with dataset.store.write() as session:
        record_left_alone(session, "comics", dataset_digest(session, dataset.name), "a" * 64)
    left = with_settings(dataset, "a" * 64)
    assert not left.is_ready and "left these images alone" in left.reason and "sdlora run comics" in left.reason
    assert with_settings(dataset, "b" * 64).is_ready
    bring(dataset, tmp_path, 1, seed=1)
    assert with_settings(dataset, "a" * 64).is_ready


def test_a_run_that_was_killed_is_tried_again_however_often(dataset, tmp_path):
    bring(dataset, tmp_path, 3)
    for _ in range(5):
        start(dataset, end="Crashed: Flow run process exited with a termination signal")
        assert asked(dataset, timedelta(minutes=RETRY_MINUTES[0] + 1)).is_ready


def test_an_obstacle_is_no_failure_and_a_cancelled_run_is_left_alone(dataset, tmp_path):
    bring(dataset, tmp_path, 3)
    for _ in range(5):
        start(dataset, end="Completed: skipped, because comics trains since 03:12")
    assert not asked(dataset, SOON).is_ready and not asked(dataset, SOON).is_given_up
    assert asked(dataset, timedelta(minutes=RETRY_MINUTES[0] + 1)).is_ready
    start(dataset, end="Cancelled")
    left = asked(dataset, MUCH_LATER)
    assert not left.is_ready and not left.is_given_up and left.reason == "a person cancelled the run for these images"


def test_new_images_wait_while_a_run_of_the_style_trains_and_outside_the_hours(dataset, tmp_path):
    bring(dataset, tmp_path, 3)
    now = datetime.now(UTC) + LATER
    closed = f"{(now + timedelta(hours=2)):%H:%M}-{(now + timedelta(hours=3)):%H:%M}"
    waits = asked(dataset, LATER, window=closed)
    assert not waits.is_ready and closed in waits.reason
    with dataset.store.write() as session:
        row = new_row(Request("comics", run_digest="a" * 64), ProcessIdentity.of_this_process(), token="t")
        session.add(row)
    assert "comics waits since" in asked(dataset, LATER).reason


def test_a_clock_set_back_makes_no_wait_longer(dataset, tmp_path):
    bring(dataset, tmp_path, 3)
    assert asked(dataset, -timedelta(hours=1)).is_ready
    assert not asked(dataset, -timedelta(seconds=20)).is_ready  # clocks of two machines


def test_images_of_a_snapshot_that_a_run_dealt_with_are_not_counted_again(store: ImageStore, tmp_path):
    from sdlora.data.clean import clean
    from sdlora.data.snapshot import make_snapshot

    dataset = store.dataset("icons")
    bring(dataset, tmp_path, 8)
    config = DataConfig(min_train_images=2, min_held_out_images=1)
    clean(dataset, config)
    snapshot = make_snapshot(dataset, config)
    with store.write() as session:
        record_dealt_with(session, "comics", dataset_digest(session, "icons"), snapshot.digest)
        session.execute(update(MemberTable).values(added_at=datetime.now(UTC) - timedelta(days=3)))
    bring(dataset, tmp_path, 2, seed=1)
    assert asked(dataset, SOON).new_images == 2
    with store.read() as session:  # another style of the dataset has dealt with nothing
        other = readiness(session, TriggeredStyle("props", "icons", TRIGGER), datetime.now(UTC) + LATER)
    assert other.new_images > 2


def test_the_first_precision_of_a_style_stays(store: ImageStore):
    with store.write() as session:
        assert record_precision(session, "comics", "bf16") == "bf16"
        assert record_precision(session, "comics", "fp32") == "bf16"
        assert style_record(session, "props").precision is None


def test_the_section_is_on_with_min_new_images_alone():
    from sdlora.config import PipelineConfig, parse_settings

    assert not PipelineConfig().trigger.is_on
    assert parse_settings({"trigger": {"min_new_images": 2}}, PipelineConfig, "x").trigger.is_on
    with pytest.raises(ConfigError, match="min_new_images is expected with quiet_minutes"):
        parse_settings({"trigger": {"quiet_minutes": 2}}, PipelineConfig, "x")


def test_a_style_with_fewer_images_than_a_run_needs_starts_none(dataset, tmp_path):
    bring(dataset, tmp_path, 3)
    with dataset.store.read() as session:
        style = TriggeredStyle("comics", dataset.name, TRIGGER, min_images=12)
        waits = readiness(session, style, datetime.now(UTC) + LATER)
    assert not waits.is_ready and waits.reason == "3 new images; a run needs at least 12 images, there are 3"
