"""fp16 with a scaled loss, on a CPU: slower there than fp32, but the same code as on a GPU without bf16."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sdlora.core.checkpoints import latest_checkpoint, save_checkpoint
from sdlora.core.errors import TrainingError
from sdlora.lora.attach import attach_lora
from sdlora.models import parts, precision
from sdlora.models.precision import probe_precision
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.inputs.batches import Batch
from sdlora.training.job import TrainingJob
from sdlora.training.learning.frozen_weights import cast_frozen_weights
from sdlora.training.learning.learner import Learner, TrainedGroup
from sdlora.training.learning.loss import DenoisingLoss
from tests.settings import filled_training
from tests.unit.lora.perturb import perturb_adapter
from tests.unit.training.setting import CONFIG, LORA, Callbacks
from tests.unit.training.test_fine_tuning import contents, interrupt_at

FP16 = CONFIG.model_copy(update={"precision": "fp16", "steps": 5, "learning_rate": 0.01})


def points(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_in_fp16_follows_fp32_and_resumes_to_the_byte_with_its_loss_scale(base, store, snapshot, tmp_path):
    adapter = fine_tune(TrainingJob(base, snapshot, LORA, FP16, tmp_path / "whole"), store)
    fine_tune(
        TrainingJob(base, snapshot, LORA, FP16.model_copy(update={"precision": "fp32"}), tmp_path / "fp32"), store
    )
    with pytest.raises(KeyboardInterrupt):
        fine_tune(
            TrainingJob(base, snapshot, LORA, FP16, tmp_path / "cut"), store, Callbacks(on_metrics=interrupt_at(2))
        )
    saved = latest_checkpoint(tmp_path / "cut" / "checkpoints").tensors["loss_scale"]
    assert saved.tolist() == [65536.0, 2.0]  # two steps without an overflow
    resumed = fine_tune(TrainingJob(base, snapshot, LORA, FP16, tmp_path / "cut"), store)
    assert contents(resumed.folder) == contents(adapter.folder)
    halves, wholes = ([p for p in points(tmp_path / run) if "loss" in p] for run in ("whole", "fp32"))
    assert [p["loss"] for p in halves] == pytest.approx([p["loss"] for p in wholes], rel=5e-3)
    # At the first step both have the same weights. Later norms may part by more on one processor than on another:
    # AdamW's first steps move every weight by the sign of its gradient, and rounding turns the smallest ones.
    assert halves[0]["gradient_norm"] == pytest.approx(wholes[0]["gradient_norm"], rel=5e-3)
    assert halves != wholes and {p["loss_scale"] for p in halves} == {65536.0}
    assert not any("loss_scale" in p for p in wholes)


def test_at_the_same_weights_the_scaled_gradient_of_fp16_is_that_of_fp32_but_for_rounding(base):
    whole, half = gradient_of(base, "fp32", scale=1.0), gradient_of(base, "fp16", scale=65536.0)
    # Measured on one processor: 0.0064 with AVX-512, 0.0073 with AVX2 only.
    assert 0 < ((half - whole).norm() / whole.norm()).item() < 0.02
    assert half.norm().item() == pytest.approx(whole.norm().item(), rel=5e-3)


def gradient_of(base, precision, scale):
    denoiser = perturb_adapter(attach_lora(parts.load_denoiser(base), LORA), scale=0.05)
    cast_frozen_weights(denoiser, precision)
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn((2, 4, 4, 8, 8), generator=generator)
    conditioning = {"encoder_hidden_states": torch.randn((4, 32, 16), generator=generator)}
    batch = Batch(latents, noise, torch.tensor([100, 300, 600, 900]), conditioning)
    loss = DenoisingLoss.of_base(base, 5.0, precision, torch.device("cpu"))
    (scale * loss.weighted(denoiser, batch)).backward()
    return torch.cat([p.grad.flatten() / scale for p in denoiser.parameters() if p.requires_grad])


def test_frozen_weights_are_stored_in_fp16_and_the_adapter_is_not(base):
    denoiser = attach_lora(parts.load_denoiser(base), LORA)
    cast_frozen_weights(denoiser, "fp16")
    linear = {p.dtype for m in denoiser.modules() if isinstance(m, nn.Linear | nn.Conv2d) for p in m.parameters()}
    assert linear == {torch.float16, torch.float32}
    assert {p.dtype for p in denoiser.parameters() if p.requires_grad} == {torch.float32}


def learner_of(weight):
    return Learner([TrainedGroup({"weight": weight}, 0.1)], filled_training(precision="fp16", steps=10, warmup_steps=0))


def test_an_overflow_moves_nothing_halves_the_scale_and_is_no_error():
    weight = nn.Parameter(torch.ones(3))
    learner = learner_of(weight)
    learner.scaled((weight * float("inf")).sum()).backward()
    assert learner.update(0).item() == 0
    assert weight.tolist() == [1, 1, 1] and learner.loss_scale == 32768
    learner.scaled(weight.sum()).backward()
    assert learner.update(1).item() == pytest.approx(3**0.5)  # of the loss itself, not of the scaled one
    assert (weight < 1).all() and learner.loss_scale == 32768


def test_a_restored_loss_scale_grows_when_the_uninterrupted_one_does(tmp_path):
    first, second = (learner_of(nn.Parameter(torch.ones(3))) for _ in range(2))
    first.scaler.set_growth_interval(3)
    second.scaler.set_growth_interval(3)

    def step(learner, number):
        learner.scaled(learner.tensors[0].sum()).backward()
        learner.update(number)

    for number in range(2):
        step(first, number)
    save_checkpoint(tmp_path, 2, first.state(), {"optimizer": first.state_values()})
    second.restore(latest_checkpoint(tmp_path))
    for learner in (first, second):
        step(learner, 2)
    assert first.loss_scale == second.loss_scale == 131072
    assert torch.equal(first.tensors[0], second.tensors[0])


def test_a_run_that_only_overflows_is_stopped_with_the_remedy(base, store, snapshot, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.amp.GradScaler, "get_scale", lambda self: 0.5)
    with pytest.raises(TrainingError, match=r"training\.precision: fp16 overflows.*by only 0\.5\..*bf16 or fp32"):
        fine_tune(TrainingJob(base, snapshot, LORA, FP16, tmp_path / "run"), store)
    assert latest_checkpoint(tmp_path / "run" / "checkpoints") is None


@pytest.mark.parametrize(
    ("bf16", "capability", "chosen"),
    [(True, (8, 0), "bf16"), (False, (7, 5), "fp16"), (False, (7, 0), "fp16"), (False, (6, 1), "fp32")],
)
def test_a_gpu_gets_bf16_else_fp16_where_it_has_units_for_it(bf16, capability, chosen, monkeypatch):
    cuda = SimpleNamespace(is_bf16_supported=lambda **_: bf16, get_device_capability=lambda: capability)
    monkeypatch.setattr(precision.torch, "cuda", cuda)
    assert probe_precision.__wrapped__("cuda").precision == chosen
