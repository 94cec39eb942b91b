"""Training and drawing on a CUDA device: `python -m pytest -m gpu`, part of `make test-all` where there is a GPU."""

from __future__ import annotations

import pytest

from sdlora.core.checkpoints import latest_checkpoint
from sdlora.models.precision import probe_precision
from sdlora.models.stable_diffusion import StableDiffusion
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.job import TrainingJob
from tests.unit.training.setting import CONFIG, LORA, Callbacks

DEVICE = "cuda"
pytestmark = pytest.mark.gpu


def losses_of(base, snapshot, store, folder, config):
    losses = {}

    def on_metrics(step, values):
        if "loss" in values:
            losses[step] = values["loss"]

    fine_tune(TrainingJob(base, snapshot, LORA, config, folder), store, Callbacks(on_metrics=on_metrics))
    return losses


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_lower_precision_learns_what_fp32_learns(precision, base, snapshot, store, tmp_path):
    whole = losses_of(base, snapshot, store, tmp_path / "fp32", CONFIG.model_copy(update={"precision": "fp32"}))
    half = losses_of(base, snapshot, store, tmp_path / precision, CONFIG.model_copy(update={"precision": precision}))
    assert half.keys() == whole.keys()
    assert list(half.values()) == pytest.approx(list(whole.values()), rel=2e-2)


def test_a_stopped_run_goes_on_from_its_checkpoint(base, snapshot, store, tmp_path):
    config = CONFIG.model_copy(update={"precision": probe_precision(DEVICE).precision})
    whole = losses_of(base, snapshot, store, tmp_path / "whole", config)

    def stop(step, values):
        if step == 3 and "loss" in values:
            raise KeyboardInterrupt

    job = TrainingJob(base, snapshot, LORA, config, tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        fine_tune(job, store, Callbacks(on_metrics=stop))
    checkpoint = latest_checkpoint(tmp_path / "stopped" / "checkpoints")
    assert checkpoint is not None
    assert 0 < checkpoint.step < config.steps
    rest = losses_of(base, snapshot, store, tmp_path / "stopped", config)
    assert max(rest) == config.steps
    assert [rest[step] for step in rest] == pytest.approx([whole[step] for step in rest], rel=2e-2)


def test_the_adapter_draws_on_the_gpu_what_it_draws_on_the_cpu(base, snapshot, store, tmp_path):
    adapter = fine_tune(TrainingJob(base, snapshot, LORA, CONFIG, tmp_path / "run"), store)
    drawn = {
        device: StableDiffusion.from_ref(base, adapter, device=device).generate(["a red circle"], [1], steps=4)
        for device in ("cpu", DEVICE)
    }
    difference = (drawn["cpu"].cpu().int() - drawn[DEVICE].cpu().int()).abs()
    assert difference.float().mean() < 2
