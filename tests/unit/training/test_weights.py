"""Training shows images in the proportion of their weights, and goes on in the middle of such an epoch."""

from __future__ import annotations

import signal
from collections import Counter
from dataclasses import replace

import pytest
import torch

from sdlora.checkpoints import latest_checkpoint
from sdlora.data import Snapshot
from sdlora.training import fine_tune
from sdlora.training import loop as loop_module
from sdlora.training.batches import draw_step
from sdlora.training.order import repeats_for
from tests.unit.training.setting import CONFIG, EVERYTHING, LORA, LORA_WITH_DROPOUT, as_snapshot


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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

    def counting(portions, config, step, *rest):
        (own,) = portions
        drawn.update(own.encoded.rows[one.index].sha256 for one in own.order.images_of(step))
        return draw_step(portions, config, step, *rest)

    monkeypatch.setattr(loop_module, "draw_step", counting)
    # 17 draws an epoch (6 + 1 + 5 x 2), and 17 steps of 2 are two of them.
    config = CONFIG.model_copy(update={"steps": 17, "validation_every_steps": 17, "precision": "fp32"})
    fine_tune(base, weighted, store, LORA, config, run_folder)
    assert drawn == {row.sha256: 4 * row.weight for row in weighted.train}


def test_weights_change_what_is_learnt(base, store, snapshot, weighted, tmp_path):
    config = CONFIG.model_copy(update={"precision": "fp32"})
    weights = {
        name: fine_tune(base, rows, store, LORA, config, tmp_path / name).digest
        for name, rows in (("alike", snapshot), ("weighted", weighted))
    }
    assert weights["alike"] != weights["weighted"]


@pytest.mark.parametrize("step", [1, 4])
def test_a_run_resumed_in_the_middle_of_a_weighted_epoch_ends_with_the_same_bytes(
    step, base, store, weighted, tmp_path
):
    def interrupt(done, values):
        if done == step and "loss" in values:
            signal.raise_signal(signal.SIGINT)

    whole = fine_tune(base, weighted, store, LORA_WITH_DROPOUT, EVERYTHING, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fine_tune(base, weighted, store, LORA_WITH_DROPOUT, EVERYTHING, tmp_path / "cut", on_metrics=interrupt)
    assert latest_checkpoint(tmp_path / "cut" / "checkpoints").step == step
    resumed = fine_tune(base, weighted, store, LORA_WITH_DROPOUT, EVERYTHING, tmp_path / "cut")
    files = sorted(path.name for path in whole.folder.iterdir())
    assert files == sorted(path.name for path in resumed.folder.iterdir())
    for name in files:
        assert (whole.folder / name).read_bytes() == (resumed.folder / name).read_bytes(), name
