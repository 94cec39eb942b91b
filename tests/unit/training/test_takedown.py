"""An image that is purged while a run trains on it: the run stops, and nothing that learnt from it stays on disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.cli.app import app
from deployments.takedown import clear_copies
from sdlora.core.errors import DataError, StorageError, TakedownError
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.snapshot import Snapshot, make_snapshot
from sdlora.data.takedown import TakedownWatch
from sdlora.store.image_store import ImageStore
from sdlora.store.lineage import record_version, require_publishable
from sdlora.training import fine_tuning
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.forget import forget_in_caches
from sdlora.training.job import TrainingJob
from sdlora.training.run_folder import exclusive
from sdlora.training.takedown import forget_runs
from tests.tiny import draw_images
from tests.unit.training.setting import CONFIG, LORA, Callbacks, write_setting
from tests.waiting import PATIENCE_SECONDS, wait_until

DATA = DataConfig(min_train_images=1, min_held_out_images=1, near_duplicate_difference=0, suspect_difference=0)


@pytest.fixture
def store(tmp_path: Path):
    with ImageStore.open(tmp_path / "home") as store:
        collect(store.dataset("icons"), str(draw_images(tmp_path / "images", 10)), DATA)
        clean(store.dataset("icons"), DATA)
        yield store


@pytest.fixture
def snapshot(store: ImageStore) -> Snapshot:
    return make_snapshot(store.dataset("icons"), DATA)


@pytest.fixture(autouse=True)
def always_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdlora.data.takedown.POLL_SECONDS", 0.0)


def job_of(base, snapshot: Snapshot, store: ImageStore, name: str = "run", **settings: object) -> TrainingJob:
    config = CONFIG.model_copy(update={"precision": "fp32", **settings})
    return TrainingJob(base, snapshot, LORA, config, store.home / "runs" / "icons" / name)


def learnt(folder: Path) -> list[str]:
    """What is left in a run folder, without its lock."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != ".lock")


def traces(home: Path, sha256: str) -> list[Path]:
    """Files outside the database that name the image, or are its bytes."""
    return [
        path
        for path in home.rglob("*")
        if path.is_file()
        and not path.name.startswith("images.db")
        and (sha256 in path.name or sha256.encode() in path.read_bytes())
    ]


def purge(store: ImageStore, sha256: str):
    with ImageStore.open(store.home) as other:  # as another process does
        return other.purge(sha256, "a takedown", "ana").lineage


@pytest.fixture
def started(
    base, store: ImageStore, snapshot: Snapshot, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that trains for hours, some steps after its start."""
    run = store.home / "runs" / "icons" / "0123456789abcdef"
    write_setting(tmp_path / "setting.json", base, store, snapshot)
    command = [sys.executable, "-m", "tests.unit.training.child", "endless", str(tmp_path / "setting.json"), str(run)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([*command, "-1", "0"], stderr=subprocess.PIPE, text=True, env=environment)
    try:
        wait_until(
            lambda: child.poll() is not None or (list(run.glob("checkpoints/step-*")) and list(run.glob("kept/*"))),
            "a checkpoint",
        )
        assert child.poll() is None, child.stderr.read()
        yield child, run
    finally:  # it would train for hours
        child.kill()
        child.communicate()


def test_a_purge_stops_the_training_of_another_process_and_the_next_run_works_without_the_image(
    started, base, store, snapshot
):
    child, run = started
    gone = snapshot.train[0].sha256
    assert traces(store.home, gone)  # its bytes, its latents
    arguments = ["images", "purge", gone, "--why", "a takedown", "--by", "ana", "--yes", "--home", str(store.home)]
    outcome = CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})
    assert outcome.exit_code == 0, outcome.output
    assert f"Unpublished weights that learnt from it were removed: {run}" in outcome.output or not learnt(run)
    said = child.communicate(timeout=PATIENCE_SECONDS)[1]
    assert child.returncode == 1
    assert f"TakedownError: Snapshot {snapshot.digest[:12]} of this run holds what was taken down" in said
    assert f"image {gone[:12]} was purged by ana" in said
    assert "Start the run again, such as with `sdlora run`: it works without it." in said
    assert traces(store.home, gone) == []
    assert learnt(run) == []
    following = make_snapshot(store.dataset("icons"), DATA)
    assert gone not in {row.sha256 for row in following.rows}
    adapter = fine_tune(job_of(base, following, store, "next"), store)
    assert adapter.snapshot_digest == following.digest
    assert gone not in {path.name for path in (store.home / "blobs").rglob("*")}
    assert traces(store.home, gone) == []


def test_a_training_that_does_not_stop_is_named_and_a_killed_one_is_cleared(base, store, snapshot):
    job = job_of(base, snapshot, store)

    def on_metrics(step, _values):
        if step == 4:
            raise MemoryError("as if it had been killed after a checkpoint")

    with pytest.raises(MemoryError):
        fine_tune(job, store, Callbacks(on_metrics=on_metrics))
    purge(store, snapshot.train[0].sha256)
    with exclusive(job.folder):  # as a training that is stopped by SIGSTOP
        assert forget_runs(store, {snapshot.digest}, patience_seconds=0.1) == ([], [job.folder])
    assert forget_runs(store, {"0" * 64}) == ([], [])
    assert {"config.json", "metrics.jsonl"} < set(learnt(job.folder))
    assert forget_runs(store, {snapshot.digest}) == ([job.folder], [])
    assert learnt(job.folder) == []


@pytest.mark.parametrize("split", ["train", "held_out"])
@pytest.mark.parametrize("step", [0, 3, 6])
def test_a_purge_at_any_step_leaves_nothing(base, store, snapshot, step, split):
    job = job_of(base, snapshot, store)
    gone = getattr(snapshot, split)[0].sha256

    def on_metrics(done, _values):
        if done == step:
            purge(store, gone)

    with pytest.raises(TakedownError, match=gone[:12]):
        fine_tune(job, store, Callbacks(on_metrics=on_metrics))
    assert learnt(job.folder) == []
    assert traces(store.home, gone) == []


def test_a_purge_is_noticed_even_if_nothing_looks_until_the_end(base, store, snapshot, monkeypatch):
    monkeypatch.setattr("sdlora.data.takedown.POLL_SECONDS", 1e9)
    job, gone, write = job_of(base, snapshot, store), snapshot.train[0].sha256, fine_tuning.write_adapters

    def written(run):
        write(run)
        purge(store, gone)

    monkeypatch.setattr(fine_tuning, "write_adapters", written)
    with pytest.raises(TakedownError):
        fine_tune(job, store)
    assert learnt(job.folder) == []


def test_a_purge_while_images_are_encoded_is_told_as_such_and_its_latents_go(base, store, snapshot, monkeypatch):
    gone, read = snapshot.train[-1].sha256, ImageStore.read_bytes

    def reading(self, sha256):
        content = read(self, sha256)
        if sha256 == gone:
            purge(store, gone)
            forget_in_caches(store.home / "cache", gone)  # before the run writes its latents
        return content

    monkeypatch.setattr(ImageStore, "read_bytes", reading)
    job = job_of(base, snapshot, store)
    with pytest.raises(TakedownError, match=gone[:12]):
        fine_tune(job, store)
    assert learnt(job.folder) == []
    assert traces(store.home, gone) == []


def test_a_signal_at_the_same_time_saves_nothing(base, store, snapshot):
    job, gone = job_of(base, snapshot, store), snapshot.train[0].sha256

    def on_metrics(step, _values):
        if step == 4:
            purge(store, gone)
            signal.raise_signal(signal.SIGTERM)

    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(TakedownError):
            fine_tune(job, store, Callbacks(on_metrics=on_metrics))
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert learnt(job.folder) == []


def test_a_published_adapter_stays_for_a_person_to_decide_and_its_runner_up_goes(base, store, snapshot):
    job = job_of(base, snapshot, store, keep="best")
    adapter = fine_tune(job, store)
    assert (job.folder / "runner-up").is_dir()
    with store.write() as session:
        record_version(session, "icons", 1, adapter.digest, snapshot.digest)
    details = purge(store, snapshot.train[0].sha256)
    cleared = clear_copies(store, details)
    assert cleared.runs == (job.folder,)
    assert (job.folder / "adapter").is_dir() and not (job.folder / "runner-up").exists()
    with pytest.raises(TakedownError):
        fine_tune(job, store)
    assert (job.folder / "adapter").is_dir()


def test_an_adapter_without_a_version_goes_with_the_image_and_is_not_published(base, store, snapshot):
    job = job_of(base, snapshot, store)
    adapter = fine_tune(job, store)
    cleared = clear_copies(store, purge(store, snapshot.train[0].sha256))
    assert cleared.runs == (job.folder,)
    assert learnt(job.folder) == []
    with store.write() as session, pytest.raises(TakedownError, match="icons version 1 cannot be published"):
        record_version(session, "icons", 1, adapter.digest, snapshot.digest)


def test_a_version_that_is_recorded_may_be_published_again(base, store, snapshot):
    with store.write() as session:
        record_version(session, "icons", 1, "a" * 64, snapshot.digest)
    purge(store, snapshot.train[0].sha256)
    with store.write() as session:
        require_publishable(session, "icons", 1, snapshot.digest)
        record_version(session, "icons", 1, "a" * 64, snapshot.digest)


def test_runs_on_other_images_go_on(base, store, snapshot):
    with ImageStore.open(store.home) as other:
        unused = other.dataset("icons").add_image(
            (store.home.parent / "images" / "0-0000.png").read_bytes() + b"another"
        )
    job = job_of(base, snapshot, store)
    adapter = fine_tune(job, store, Callbacks(on_metrics=lambda *_: purge(store, unused)))
    clear_copies(store, purge(store, unused))
    assert adapter.folder.is_dir()
    assert fine_tune(job, store) == adapter


def test_a_database_that_does_not_answer_does_not_end_a_training(store, snapshot, monkeypatch, caplog):
    watch = TakedownWatch(store, snapshot)

    def away(*, waits: bool = True):
        raise StorageError("the server is away")

    monkeypatch.setattr(store, "read", away)
    assert not watch.found(at_once=True)
    assert "the server is away" in caplog.text
    with pytest.raises(StorageError):  # but results do not count unasked
        watch.refuse()


def test_the_bytes_of_a_purged_image_are_missed_with_its_reason(store, snapshot):
    gone = snapshot.train[0].sha256
    purge(store, gone)
    with pytest.raises(DataError, match=r"purged by ana.*gone for good") as caught:
        store.read_bytes(gone)
    assert "Collect its source again" not in str(caught.value)
