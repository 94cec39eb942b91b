"""Regular fine-tuning with the loop of the adapters."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from sdlora.core.errors import TrainingError, WeightsError
from sdlora.models.stable_diffusion import StableDiffusion
from sdlora.processes.costs import measured_costs
from sdlora.records.costs import Costs
from sdlora.training.full import fine_tune_fully
from sdlora.training.job import TrainingJob
from tests.unit.training.setting import CONFIG, Callbacks
from tests.unit.training.test_fine_tuning import interrupt_at

FULL = CONFIG.model_copy(update={"learning_rate": 2e-4, "precision": "bf16", "horizontal_flip": True, "ema_decay": 0.9})


pytestmark = pytest.mark.usefixtures("one_thread")


def test_all_weights_of_the_denoiser_learn_and_nothing_else(base, store, snapshot, tmp_path):
    points = []
    model = fine_tune_fully(
        TrainingJob(base, snapshot, None, FULL, tmp_path / "run"),
        store,
        Callbacks(on_metrics=lambda step, values: points.append((step, values))),
    )
    for part, changed in (("unet/diffusion_pytorch_model", True), ("vae/diffusion_pytorch_model", False)):
        before, after = (load_file(folder / f"{part}.safetensors") for folder in (base.folder, model.folder))
        assert before.keys() == after.keys()
        moved = [not torch.equal(before[key], after[key]) for key in before]
        assert all(moved) if changed else not any(moved)
    assert model.digest != base.digest
    assert any("validation_loss" in values for _, values in points)
    StableDiffusion.from_ref(model).generate_image("a red circle", steps=2)
    assert fine_tune_fully(TrainingJob(base, snapshot, None, FULL, tmp_path / "run"), store) == model


def test_an_interrupted_run_ends_with_the_same_model(base, store, snapshot, tmp_path):
    whole = fine_tune_fully(TrainingJob(base, snapshot, None, FULL, tmp_path / "whole"), store)
    with pytest.raises(KeyboardInterrupt):
        fine_tune_fully(
            TrainingJob(base, snapshot, None, FULL, tmp_path / "cut"), store, Callbacks(on_metrics=interrupt_at(2))
        )
    resumed = fine_tune_fully(TrainingJob(base, snapshot, None, FULL, tmp_path / "cut"), store)
    assert resumed.digest == whole.digest
    with pytest.raises(TrainingError, match="holds the run"):
        fine_tune_fully(TrainingJob(base, snapshot, None, FULL.model_copy(update={"seed": 5}), tmp_path / "cut"), store)


def test_a_damaged_model_is_not_taken_for_a_finished_one(base, store, snapshot, tmp_path):
    model = fine_tune_fully(
        TrainingJob(base, snapshot, None, FULL.model_copy(update={"steps": 1}), tmp_path / "run"), store
    )
    weights = model.folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(WeightsError, match="damaged"):
        fine_tune_fully(
            TrainingJob(base, snapshot, None, FULL.model_copy(update={"steps": 1}), tmp_path / "run"), store
        )


def test_costs_add_up_over_interruptions_and_see_the_peak(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            _spend_and_stop(tmp_path)
    costs = Costs.load(tmp_path)
    assert costs.training_peak_bytes > 40e6
    assert costs.process_peak_bytes > costs.training_peak_bytes
    assert costs.seconds > 0
    assert json.loads((tmp_path / "costs.json").read_text()) == costs.model_dump(exclude_defaults=True)


def _spend_and_stop(folder):
    with measured_costs(folder):
        torch.ones(16_000_000).sum()  # 64 MB for a moment
        raise KeyboardInterrupt
