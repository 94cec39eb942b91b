"""Training shows images in the proportion of their weights, and goes on in the middle of such an epoch."""

from __future__ import annotations

import signal
from collections import Counter
from dataclasses import replace

import pytest
from PIL import Image

from sdlora.core.checkpoints import latest_checkpoint
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.snapshot import Snapshot, make_snapshot
from sdlora.store.image_store import ImageStore
from sdlora.training import loop as loop_module
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.inputs.batches import draw_step
from sdlora.training.inputs.order import repeats_for
from sdlora.training.job import TrainingJob
from tests.unit.data.drawing import drawing
from tests.unit.training.setting import (
    CONFIG,
    EVERYTHING,
    LORA,
    LORA_WITH_DROPOUT,
    Callbacks,
    as_snapshot,
    write_setting,
)
from tests.unit.training.test_fine_tuning import contents, curve, run_module

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def weighted(snapshot: Snapshot) -> Snapshot:
    """Seven training images, of which the first counts three times and the second half: 19 / 2 images' worth."""
    weights = {snapshot.train[0].sha256: 3.0, snapshot.train[1].sha256: 0.5}
    return as_snapshot([replace(row, weight=weights.get(row.sha256, 1.0)) for row in snapshot.rows])


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        ([1, 1, 1], [1, 1, 1]),
        ([2, 2], [1, 1]),
        ([1, 0.5, 3], [2, 1, 6]),
        ([10, 2, 5], [10, 2, 5]),
        ([0.75, 12], [1, 16]),
    ],
)
def test_an_epoch_has_the_smallest_whole_numbers_in_the_weights_proportion(weights, counts):
    assert repeats_for(weights) == counts


def test_images_are_drawn_in_the_proportion_of_their_weights(base, store, weighted, run_folder, monkeypatch):
    drawn = Counter()

    def counting(groups, config, step, *rest):
        (own,) = groups
        drawn.update(own.encoded.rows[one.index].sha256 for one in own.order.images_of(step))
        return draw_step(groups, config, step, *rest)

    monkeypatch.setattr(loop_module, "draw_step", counting)
    # 17 draws an epoch (6 + 1 + 5 x 2), and 17 steps of 2 are two of them.
    config = CONFIG.model_copy(update={"steps": 17, "validation_every_steps": 17, "precision": "fp32"})
    fine_tune(TrainingJob(base, weighted, LORA, config, run_folder), store)
    assert drawn == {row.sha256: 4 * row.weight for row in weighted.train}


def test_a_run_stopped_or_killed_in_the_middle_of_a_weighted_epoch_ends_with_the_same_bytes(
    base, store, weighted, tmp_path
):
    def interrupt(done, values):
        if done == 1 and "loss" in values:
            signal.raise_signal(signal.SIGINT)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    write_setting(tmp_path / "setting.json", base, store, weighted)
    fine_tune(TrainingJob(base, weighted, LORA_WITH_DROPOUT, EVERYTHING, whole), store)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(
            TrainingJob(base, weighted, LORA_WITH_DROPOUT, EVERYTHING, cut), store, Callbacks(on_metrics=interrupt)
        )
    assert latest_checkpoint(cut / "checkpoints").step == 1
    child = "tests.unit.training.child", "everything", str(tmp_path / "setting.json"), str(cut)
    assert run_module(*child, "3", str(int(signal.SIGKILL))) == -signal.SIGKILL
    assert latest_checkpoint(cut / "checkpoints").step == 2  # of 17 draws an epoch has, 4 were made
    fine_tune(TrainingJob(base, weighted, LORA_WITH_DROPOUT, EVERYTHING, cut), store)
    assert contents(cut / "adapter") == contents(whole / "adapter")
    assert curve(cut) == curve(whole)


def test_repeats_ratings_and_masks_of_a_folder_reach_the_loop(base, tmp_path, monkeypatch):
    folder = tmp_path / "pictures"
    for name, seeds in (("3_dog", range(6)), ("cat", range(6, 12))):
        (folder / name).mkdir(parents=True)
        for seed in seeds:
            drawing(seed).save(folder / name / f"{seed}.png")
            mask = Image.new("L", (32, 32))
            mask.paste(255, (0, 0, 16, 32))
            mask.save(folder / name / f"{seed}-masklabel.png")
    settings = DataConfig(min_train_images=4, min_held_out_images=2)
    drawn = Counter()

    def counting(groups, config, step, *rest):
        batches = draw_step(groups, config, step, *rest)
        (own,) = groups
        drawn.update(own.encoded.rows[one.index].sha256 for one in own.order.images_of(step))
        for batch in batches:
            side = batch.latents.shape[-1]
            assert batch.position_weights[..., : side // 2 - 1].min() > 1.8
            assert batch.position_weights[..., side // 2 + 1 :].max() < 0.05
        return batches

    monkeypatch.setattr(loop_module, "draw_step", counting)
    with ImageStore.open(tmp_path / "home") as own_store:
        dataset = own_store.dataset("icons")
        collect(dataset, str(folder), settings)
        liked = next(image.sha256 for image in dataset.images() if "cat" in image.files[0])
        clean(dataset, settings)
        own_store.rate(liked, 4, "ana")
        snapshot = make_snapshot(own_store.dataset("icons"), settings)
        epoch = round(sum(row.weight for row in snapshot.train))
        config = CONFIG.model_copy(
            update={"steps": epoch, "batch_size": 2, "validation_every_steps": epoch, "masked_weight": 0.0}
        )
        fine_tune(TrainingJob(base, snapshot, LORA, config, tmp_path / "run"), own_store)
        dogs = {image.sha256 for image in own_store.dataset("icons").images() if "3_dog" in image.files[0]}
    trained = {row.sha256 for row in snapshot.train}
    assert trained & dogs and liked in trained
    assert drawn == {sha256: 2 * (3 if sha256 in dogs else 2 if sha256 == liked else 1) for sha256 in trained}
