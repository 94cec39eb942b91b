"""What the clock and new data leave alone: cancelled runs, runs that fail alike, and a newer sdlora."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from prefect.exceptions import TerminationSignal

from sdlora.config import PipelineConfig
from sdlora.core.refs import BaseModelRef, SnapshotRef
from sdlora.core.trigger import TriggerConfig
from sdlora.evaluation.config import EvaluationConfig
from sdlora.processes.identity import ProcessIdentity
from sdlora.store.image_store import ImageStore
from sdlora.store.inputs import dataset_digest
from sdlora.store.readiness import TriggeredStyle, readiness
from sdlora.store.style_records import style_record
from sdlora.store.tables.base import utc_now
from sdlora.store.tickets import Request, last_runs, new_row
from sdlora.training.config import TrainingConfig
from tasks.notify import tell as telling
from tasks.results import RunRef
from tasks.settings_digest import settings_digest
from tasks.waiting import outcomes
from tasks.waiting.outcomes import ending_recorded
from tasks.waiting.unattended import leave_alone, record_learnt, tell_if_given_up

BASE = BaseModelRef(name="b", folder=Path("b"), digest="b" * 64)
SNAPSHOT = SnapshotRef(
    digest="s" * 64, dataset="x", training_digest="t" * 64, train_count=9, held_out_count=3, inputs="i"
)
CONFIG = PipelineConfig(name="comics", training=TrainingConfig(steps=7))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(outcomes, "asked_by", lambda: "clock")
    return tmp_path


def run(home: Path, digest: str) -> RunRef:
    return RunRef(digest=digest, folder=home / digest)


def reason(home: Path, digest: str, config: PipelineConfig = CONFIG, force: bool = False) -> str | None:
    return leave_alone.fn(config, BASE, SNAPSHOT, run(home, digest), force, home)


def request(digest: str, config: PipelineConfig = CONFIG) -> Request:
    return Request("comics", run_digest=digest, settings_digest=settings_digest(config))


def end(home: Path, digest: str, state: str, why: str) -> None:
    with ImageStore.open(home) as store, store.write() as session:
        row = new_row(request(digest), ProcessIdentity.of_this_process(), token="")
        row.state, row.reason, row.ended_at = state, why, utc_now()
        session.add(row)


def test_a_run_that_failed_three_times_alike_is_left_alone_until_its_inputs_change(home, monkeypatch):
    told = []
    monkeypatch.setattr("tasks.waiting.unattended.tell", lambda _, message: told.append(message))
    for seconds in (3, 17):
        end(home, "d1", "failed", f"The loss is not a number after {seconds} steps.")
    end(home, "d1", "lost", "The process was stopped.")
    tell_if_given_up(request("d1"), home)
    assert reason(home, "d1") is None and not told
    end(home, "d1", "failed", "The loss is not a number after 4 steps.")
    tell_if_given_up(request("d1"), home)
    assert [message.kind for message in told] == ["given-up"]
    assert "failed 3 times in the same way: The loss is not a number" in reason(home, "d1")
    with ImageStore.open(home) as store, store.read() as session:
        assert last_runs(session, ["comics"])["comics"].state == "skipped"
        record = style_record(session, "comics")
        assert record.left_alone == ("i", settings_digest(CONFIG)) and record.data_digest is None  # still news
    assert reason(home, "d2") is None
    assert reason(home, "d1", force=True) is None
    monkeypatch.setattr(outcomes, "asked_by", lambda: "person")
    assert reason(home, "d1") is None


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_setting_outside_the_run_digest_is_a_change_too(home, state):
    corrected = CONFIG.model_copy(update={"evaluation": EvaluationConfig(batch_size=1)})
    for _ in range(3):
        end(home, "d1", state, "The duel needs more memory.")
    assert reason(home, "d1") is not None
    assert reason(home, "d1", corrected) is None


def test_failures_of_different_kinds_are_tried_again(home):
    for why in ("The disk is full.", "No GPU.", "The disk is full."):
        end(home, "d1", "failed", why)
    assert reason(home, "d1") is None


def test_equal_images_and_settings_train_again_only_if_something_but_sdlora_changed(home):
    record_learnt.fn(CONFIG, BASE, SNAPSHOT, run(home, "d1"), home)
    assert "only sdlora has changed" in reason(home, "d2")
    assert reason(home, "d1") is None  # its version is gone, so it is made again
    other = CONFIG.model_copy(update={"training": TrainingConfig(steps=8)})
    assert reason(home, "d2", other) is None
    quieter = CONFIG.model_copy(update={"training": TrainingConfig(steps=7, log_every_steps=1)})
    assert "only sdlora has changed" in reason(home, "d2", quieter)
    assert reason(home, "d2", force=True) is None


def test_a_message_that_cannot_be_sent_is_no_error(home, monkeypatch):
    monkeypatch.setattr(telling, "announce", lambda *_: 1 / 0)
    for _ in range(3):
        end(home, "d1", "failed", "x")
    tell_if_given_up(request("d1"), home)


def test_a_run_that_a_person_cancelled_before_the_queue_is_left_alone_until_something_changes(home, monkeypatch):
    monkeypatch.setattr(outcomes, "asked_by", lambda: "person")
    with ImageStore.open(home) as store:
        store.dataset("comics").add_image(b"an image")
    with pytest.raises(KeyboardInterrupt), ending_recorded(CONFIG, home):
        raise KeyboardInterrupt
    monkeypatch.setattr(outcomes, "asked_by", lambda: "clock")
    with pytest.raises(OSError, match="no network"), ending_recorded(CONFIG, home):
        raise OSError("no network")
    style = TriggeredStyle(
        "comics", "comics", TriggerConfig(min_new_images=1, quiet_minutes=0), settings_digest=settings_digest(CONFIG)
    )

    def snapshot() -> SnapshotRef:
        with ImageStore.open(home) as store, store.read() as session:
            return SNAPSHOT.model_copy(update={"inputs": dataset_digest(session, "comics")})

    def alone() -> tuple[bool, str | None]:
        with ImageStore.open(home) as store, store.read() as session:
            decision = readiness(session, style, utc_now())
        return decision.is_ready, leave_alone.fn(CONFIG, BASE, snapshot(), run(home, "d1"), False, home)

    why = "a person cancelled this run, and no change of images or settings came since: Cancelled with Ctrl-C."
    assert alone() == (False, why)
    corrected = CONFIG.model_copy(update={"evaluation": EvaluationConfig(batch_size=1)})
    assert leave_alone.fn(corrected, BASE, snapshot(), run(home, "d1"), False, home) is None
    with ImageStore.open(home) as store:
        store.dataset("comics").add_image(b"another image")
    assert alone() == (True, None)


def test_a_run_whose_process_is_stopped_before_the_queue_is_not_left_alone(home):
    with ImageStore.open(home) as store:
        store.dataset("comics").add_image(b"an image")
    with pytest.raises(TerminationSignal), ending_recorded(CONFIG, home):
        raise TerminationSignal(signal.SIGTERM)
    with ImageStore.open(home) as store, store.read() as session:
        assert last_runs(session, ["comics"]) == {}
        assert style_record(session, "comics").left_alone == (None, None)


def test_a_person_who_starts_a_run_that_was_left_alone_lets_new_data_start_it_too(home, monkeypatch):
    with pytest.raises(KeyboardInterrupt), ending_recorded(CONFIG, home):
        raise KeyboardInterrupt
    monkeypatch.setattr(outcomes, "asked_by", lambda: "person")
    assert reason(home, "d1") is None
    with ImageStore.open(home) as store, store.read() as session:
        assert style_record(session, "comics").left_alone == (None, None)
