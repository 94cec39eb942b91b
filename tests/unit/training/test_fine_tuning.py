from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sdlora import LoRA, StableDiffusion
from sdlora.core.checkpoints import latest_checkpoint
from sdlora.core.errors import StorageError, TargetModuleError, TrainingError, WeightsError
from sdlora.data.snapshot import Snapshot
from sdlora.lora.load import open_adapter
from sdlora.records.choice import Choice
from sdlora.store.image_store import ImageStore
from sdlora.training.config import ResolvedTraining
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.identity import run_digest
from sdlora.training.job import TrainingJob
from tests.settings import filled_lora
from tests.unit.training.disk import disk_space
from tests.unit.training.setting import (
    CONFIG,
    EVERYTHING,
    LONG,
    LORA,
    LORA_WITH_DROPOUT,
    Callbacks,
    as_snapshot,
    fill_store,
    on_one_thread,
    write_setting,
)
from tests.unit.training.written import contents, curve

pytestmark = pytest.mark.usefixtures("one_thread")


def run_module(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", *arguments], env=environment, capture_output=True, text=True)
    return done.returncode if done.returncode <= 0 else done.stderr


def interrupt_at(fatal_step, number=signal.SIGINT):
    def on_metrics(step, values):
        if step == fatal_step and "loss" in values:
            signal.raise_signal(number)

    return on_metrics


@pytest.fixture(scope="module")
def uninterrupted(base, filled, tmp_path_factory):
    store, snapshot = filled
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    with on_one_thread():
        fine_tune(TrainingJob(base, snapshot, LORA_WITH_DROPOUT, EVERYTHING, folder), store)
    return folder


def test_a_run_killed_at_three_moments_ends_with_the_same_adapter(
    uninterrupted, base, store, snapshot, run_folder, tmp_path
):
    write_setting(tmp_path / "setting.json", base, store, snapshot)
    child = "tests.unit.training.child", "everything", str(tmp_path / "setting.json"), str(run_folder)
    # Before the first checkpoint; at any time while it prepares, steps, measures or saves; with work to lose.
    anytime = f"{random.Random(0).uniform(0.05, 0.6):.3f}s"
    for moment, outcomes in (("1", (-9,)), (anytime, (-9, 0)), ("5", (-9, 0))):
        assert run_module(*child, moment, str(int(signal.SIGKILL))) in outcomes, anytime
    fine_tune(TrainingJob(base, snapshot, LORA_WITH_DROPOUT, EVERYTHING, run_folder), store)
    assert contents(run_folder / "adapter") == contents(uninterrupted / "adapter"), anytime
    assert curve(run_folder) == curve(uninterrupted), anytime


@pytest.mark.parametrize("method", ["dora", "loha", "lokr", "pissa"])
def test_every_method_trains_in_bf16_and_resumes_to_the_same_bytes(method, base, store, snapshot, tmp_path):
    lora = filled_lora(method=method, rank=2, targets="attention")
    config = CONFIG.model_copy(update={"steps": 3, "precision": "bf16"})
    whole = fine_tune(TrainingJob(base, snapshot, lora, config, tmp_path / "whole"), store)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(
            TrainingJob(base, snapshot, lora, config, tmp_path / "cut"), store, Callbacks(on_metrics=interrupt_at(1))
        )
    resumed = fine_tune(TrainingJob(base, snapshot, lora, config, tmp_path / "cut"), store)
    assert contents(resumed.folder) == contents(whole.folder)
    assert curve(tmp_path / "whole")[-2]["loss"] > 0


@pytest.mark.slow
def test_a_run_killed_at_twenty_random_moments_ends_with_the_same_files(base, store, snapshot, run_folder, tmp_path):
    fine_tune(TrainingJob(base, snapshot, LORA_WITH_DROPOUT, LONG, tmp_path / "whole"), store)
    write_setting(tmp_path / "setting.json", base, store, snapshot)
    moments, kills = random.Random(0), 0
    while kills < 20:
        # From the claim of the folder over the first steps to the last; each restart goes on from the last checkpoint.
        seconds = f"{moments.uniform(0.05, 1.2):.3f}s"
        child = "tests.unit.training.child", "long", str(tmp_path / "setting.json"), str(run_folder), seconds
        ended = run_module(*child, str(int(signal.SIGKILL)))
        assert ended in (0, -signal.SIGKILL), ended
        kills += 1
        if ended == 0:  # it came to its end before: the rest of the kills go to another run of the same inputs
            assert contents(run_folder / "adapter") == contents(tmp_path / "whole" / "adapter")
            shutil.rmtree(run_folder)
    fine_tune(TrainingJob(base, snapshot, LORA_WITH_DROPOUT, LONG, run_folder), store)
    for folder in ("adapter", "runner-up", "samples"):
        assert contents(run_folder / folder) == contents(tmp_path / "whole" / folder), folder
    assert (run_folder / "choice.json").read_text() == (tmp_path / "whole" / "choice.json").read_text()
    assert curve(run_folder) == curve(tmp_path / "whole")


@pytest.mark.parametrize("step", [1, 4])
def test_an_interrupted_run_saves_first_and_ends_with_the_same_adapter(
    step, uninterrupted, base, store, snapshot, run_folder
):
    with pytest.raises(KeyboardInterrupt):
        fine_tune(
            TrainingJob(base, snapshot, LORA_WITH_DROPOUT, EVERYTHING, run_folder),
            store,
            Callbacks(on_metrics=interrupt_at(step)),
        )
    assert latest_checkpoint(run_folder / "checkpoints").step == step
    seen = []
    fine_tune(
        TrainingJob(base, snapshot, LORA_WITH_DROPOUT, EVERYTHING, run_folder),
        store,
        Callbacks(on_metrics=lambda *call: seen.append(call)),
    )
    assert contents(run_folder / "adapter") == contents(uninterrupted / "adapter")
    assert [number for number, values in seen if "loss" in values] == [1, 2, 3, 4, 5, 6]  # the curve has no gap
    assert curve(run_folder) == curve(uninterrupted)


def with_more_held_out(snapshot: Snapshot) -> Snapshot:
    """The snapshot after two more images came, both held out."""
    more = [replace(row, split="held_out", captions=("more",)) for row in snapshot.train[:2]]
    return as_snapshot([*snapshot.train, *snapshot.held_out, *(replace(row, sha256=row.sha256[::-1]) for row in more)])


def test_only_training_rows_name_a_run(base, snapshot, run_folder):
    def digest(rows: Snapshot) -> str:
        return TrainingJob(base, rows, LORA, CONFIG, run_folder).digest

    more = with_more_held_out(snapshot)
    assert more.digest != snapshot.digest
    assert digest(more) == digest(snapshot)
    recaptioned = as_snapshot([replace(snapshot.train[0], captions=("other words",)), *snapshot.rows[1:]])
    assert digest(recaptioned) != digest(snapshot)


def test_a_run_that_continues_after_more_images_were_held_out_keeps_those_it_began_with(
    uninterrupted, base, store, snapshot, run_folder, monkeypatch
):
    with pytest.raises(KeyboardInterrupt):
        fine_tune(
            TrainingJob(base, snapshot, LORA_WITH_DROPOUT, EVERYTHING, run_folder),
            store,
            Callbacks(on_metrics=interrupt_at(4)),
        )
    more = TrainingJob(base, with_more_held_out(snapshot), LORA_WITH_DROPOUT, EVERYTHING, run_folder)
    with pytest.raises(TrainingError, match=f"began with the snapshot {snapshot.digest[:16]}"):
        fine_tune(more, store)  # this image database has only the images
    monkeypatch.setattr(
        "sdlora.training.run_folder.load_snapshot", lambda _, digest: {snapshot.digest: snapshot}[digest]
    )
    fine_tune(more, store)
    assert contents(run_folder / "adapter") == contents(uninterrupted / "adapter")
    assert curve(run_folder) == curve(uninterrupted)


def test_sigterm_saves_and_then_reaches_the_handler_it_was_meant_for(base, store, snapshot, run_folder):
    received = []
    previous = signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    try:
        with pytest.raises(KeyboardInterrupt):
            fine_tune(
                TrainingJob(base, snapshot, LORA, CONFIG, run_folder),
                store,
                Callbacks(on_metrics=interrupt_at(3, signal.SIGTERM)),
            )
        assert received == [signal.SIGTERM]
        assert latest_checkpoint(run_folder / "checkpoints").step == 3
        signal.raise_signal(signal.SIGTERM)  # the old handler is back
        assert len(received) == 2
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_a_damaged_checkpoint_costs_the_work_since_the_one_before(uninterrupted, base, store, snapshot, run_folder):
    with pytest.raises(KeyboardInterrupt):
        fine_tune(
            TrainingJob(base, snapshot, LORA_WITH_DROPOUT, EVERYTHING, run_folder),
            store,
            Callbacks(on_metrics=interrupt_at(5)),
        )
    newest = run_folder / "checkpoints" / "step-00000005" / "state.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    fine_tune(TrainingJob(base, snapshot, LORA_WITH_DROPOUT, EVERYTHING, run_folder), store)
    assert contents(run_folder / "adapter") == contents(uninterrupted / "adapter")


def test_a_finished_run_is_returned_without_training(uninterrupted, base, store, snapshot):
    seen = []
    adapter = fine_tune(
        TrainingJob(base, snapshot, LORA_WITH_DROPOUT, EVERYTHING, uninterrupted),
        store,
        Callbacks(on_metrics=lambda *call: seen.append(call), on_progress=lambda *call: seen.append(call)),
    )
    assert not seen
    assert adapter.folder == uninterrupted / "adapter"
    assert adapter.run_digest == run_digest(base.digest, snapshot.training_digest, LORA_WITH_DROPOUT, EVERYTHING)
    assert not (uninterrupted / "checkpoints").exists()


def test_a_finished_adapter_that_was_damaged_is_not_returned(base, store, snapshot, run_folder):
    config = CONFIG.model_copy(update={"steps": 1})
    fine_tune(TrainingJob(base, snapshot, LORA, config, run_folder), store)
    path = run_folder / "adapter" / "adapter.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(WeightsError, match=r"adapter\.safetensors is damaged"):
        fine_tune(TrainingJob(base, snapshot, LORA, config, run_folder), store)


@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_of_other_settings_is_refused(finished, base, store, snapshot, run_folder):
    config = CONFIG.model_copy(update={"steps": 2})
    if finished:
        fine_tune(TrainingJob(base, snapshot, LORA, config, run_folder), store)
    else:
        with pytest.raises(KeyboardInterrupt):
            fine_tune(
                TrainingJob(base, snapshot, LORA, config, run_folder), store, Callbacks(on_metrics=interrupt_at(1))
            )
    changed = config.model_copy(update={"learning_rate": 1e-5})
    with pytest.raises(TrainingError, match=str(run_folder)):
        fine_tune(TrainingJob(base, snapshot, LORA, changed, run_folder), store)


def test_training_lowers_the_loss_on_images_it_trains_on(base, store, snapshot, run_folder):
    rows = [type(row)(row.sha256, row.captions, "train") for row in snapshot.train]
    rows += [type(row)(row.sha256, row.captions, "held_out") for row in snapshot.train]
    config = CONFIG.model_copy(
        update={"steps": 25, "learning_rate": 1e-2, "validation_every_steps": 25, "precision": "fp32"}
    )
    lora = filled_lora(rank=8)
    fine_tune(TrainingJob(base, as_snapshot(rows), lora, config, run_folder), store)
    losses = [point["validation_loss"] for point in curve(run_folder) if "validation_loss" in point]
    assert losses[-1] < 0.9 * losses[0]


def test_the_adapter_that_measures_best_is_the_one_written(base, store, snapshot, run_folder):
    # A rate that first helps and then ruins: the last step is not the best one.
    config = CONFIG.model_copy(
        update={"steps": 12, "schedule": "constant", "learning_rate": 0.03, "validation_every_steps": 3}
    )
    adapter = fine_tune(TrainingJob(base, snapshot, LORA, config, run_folder), store)
    losses = {point["step"]: point["validation_loss"] for point in curve(run_folder) if "validation_loss" in point}
    choice = Choice.model_validate_json((run_folder / "choice.json").read_text())
    ranked = sorted((loss, step) for step, loss in losses.items() if step)
    assert (choice.step, choice.runner_up_step) == (ranked[0][1], ranked[1][1])
    assert choice.validation_loss == pytest.approx(ranked[0][0])
    assert adapter.digest != open_adapter(run_folder / "runner-up").digest
    assert not (run_folder / "kept").exists()
    last = fine_tune(
        TrainingJob(base, snapshot, LORA, config.model_copy(update={"keep": "last"}), run_folder / "last"), store
    )
    assert (last.digest == adapter.digest) == (choice.step == 12)


def test_a_run_that_has_ceased_to_help_stops_early_and_says_so(base, store, snapshot, run_folder):
    ruinous = {"steps": 40, "learning_rate": 3.0, "schedule": "constant", "warmup_steps": 0}
    config = CONFIG.model_copy(update={**ruinous, "validation_every_steps": 1, "early_stop_patience": 2})
    adapter = fine_tune(TrainingJob(base, snapshot, LORA, config, run_folder), store)
    choice = Choice.model_validate_json((run_folder / "choice.json").read_text())
    assert choice.stopped_early and choice.step < choice.trained_steps < 40
    assert curve(run_folder)[-1]["step"] == choice.trained_steps
    assert "stopped at step" in choice.in_words()
    again = run_folder / "again"
    stop = interrupt_at(choice.trained_steps)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(TrainingJob(base, snapshot, LORA, config, again), store, Callbacks(on_metrics=stop))
    assert fine_tune(TrainingJob(base, snapshot, LORA, config, again), store).digest == adapter.digest


def test_the_curve_holds_what_people_look_for(uninterrupted):
    points = curve(uninterrupted)
    assert [point["step"] for point in points if "validation_loss" in point] == [0, 3, 6]
    for point in points:
        assert point.keys() in (
            {"step", "validation_loss"},
            {"step", "loss", "gradient_norm", "learning_rate"},
        )
        assert all(value >= 0 for value in point.values())
    started = json.loads((uninterrupted / "config.json").read_text())
    assert ResolvedTraining.model_validate(started["training"]) == EVERYTHING
    assert started["precision"] == "bf16"


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_images_and_saves_nothing(
    base, store, snapshot, run_folder
):
    config = CONFIG.model_copy(update={"learning_rate": 1e30, "warmup_steps": 0, "log_every_steps": 4})
    with pytest.raises(
        TrainingError, match=r"at step \d, on the images ([0-9a-f]{12}(, )?){1,2}.*learning_rate"
    ) as stop:
        fine_tune(TrainingJob(base, snapshot, LORA, config, run_folder), store)
    known = {row.sha256[:12] for row in snapshot.train}
    assert any(name in str(stop.value) for name in known)
    assert not (run_folder / "adapter").exists()
    checkpoint = latest_checkpoint(run_folder / "checkpoints")
    assert checkpoint is None or all(tensor.isfinite().all() for tensor in checkpoint.tensors.values())


def test_a_full_disk_at_a_checkpoint_keeps_the_last_good_one(uninterrupted, base, store, snapshot, run_folder):
    limited = []

    def fill_the_disk_at(step, values):
        if step == 3 and "loss" in values:
            limited.append(disk_space(20_000))
            limited[0].__enter__()

    try:
        with pytest.raises(StorageError, match=rf"{run_folder}.*Free some space"):
            fine_tune(
                TrainingJob(base, snapshot, LORA_WITH_DROPOUT, EVERYTHING, run_folder),
                store,
                Callbacks(on_metrics=fill_the_disk_at),
            )
    finally:
        limited[0].__exit__(None, None, None)
    assert latest_checkpoint(run_folder / "checkpoints").step == 2
    fine_tune(TrainingJob(base, snapshot, LORA_WITH_DROPOUT, EVERYTHING, run_folder), store)
    assert contents(run_folder / "adapter") == contents(uninterrupted / "adapter")


def test_wrong_settings_are_found_before_anything_is_trained(base, store, snapshot, run_folder):
    for lora in (filled_lora(rank=2, target_modules=("to_q", "to_x")), filled_lora(rank=64)):
        with pytest.raises(TargetModuleError, match="nothing was trained"):
            fine_tune(TrainingJob(base, snapshot, lora, CONFIG, run_folder / str(lora.rank)), store)
        assert not (run_folder / str(lora.rank) / "config.json").exists()
    with pytest.raises(TrainingError, match="no training images"):
        fine_tune(TrainingJob(base, as_snapshot(list(snapshot.held_out)), LORA, CONFIG, run_folder), store)


def test_an_image_that_cannot_be_read_costs_one_image(base, tmp_path, caplog):
    with ImageStore.open(tmp_path / "home") as store:
        snapshot = fill_store(store, tmp_path / "images")
        bad = [row.sha256 for row in snapshot.train[:2]]
        for sha256 in bad:
            path = next(store.home.rglob(sha256))
            path.chmod(0o600)
            path.write_bytes(path.read_bytes()[:100])
        fine_tune(TrainingJob(base, snapshot, LORA, CONFIG, tmp_path / "run"), store)
    assert sorted(json.loads((tmp_path / "run" / "skipped.json").read_text())) == sorted(bad)
    assert "2 of 10 images cannot be used" in caplog.text


def test_a_snapshot_without_held_out_images_is_trained_without_validation(base, store, snapshot, run_folder):
    config = CONFIG.model_copy(update={"steps": 1})
    fine_tune(TrainingJob(base, as_snapshot(list(snapshot.train)), LORA, config, run_folder), store)
    assert [point.keys() for point in curve(run_folder)] == [{"step", "loss", "gradient_norm", "learning_rate"}]


def test_the_two_classes_train_and_merge(base, store, snapshot, run_folder):
    model = StableDiffusion.from_ref(base, precision="fp32")
    before = model.generate(["a red circle"], [0], steps=2)
    lora = LoRA(model, LORA)
    with pytest.raises(WeightsError, match="fine_tune"):
        lora.update_parameters()
    config = CONFIG.model_copy(update={"steps": 2, "learning_rate": 0.1})
    adapter = lora.fine_tune(snapshot, store, config, run_folder, name="circles")
    assert (adapter.folder / "circles.safetensors").is_file()
    assert torch.equal(model.generate(["a red circle"], [0], steps=2), before)
    assert lora.update_parameters() is model
    after = model.generate(["a red circle"], [0], steps=2)
    assert not torch.equal(after, before)
    merged = StableDiffusion.from_ref(base, adapter, precision="fp32").generate(["a red circle"], [0], steps=2)
    assert (merged.int() - after.int()).abs().max() <= 1
