from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from sdlora.core.checkpoints import latest_checkpoint, save_checkpoint
from sdlora.core.errors import ConfigError, TrainingError
from sdlora.lora.attach import adapter_parameters, attach_lora
from sdlora.models import parts
from sdlora.training.learning.learner import Learner, TrainedGroup
from sdlora.training.learning.optimizers import require_library
from tests.settings import filled_training
from tests.unit.training.setting import CONFIG, LORA


@pytest.fixture
def denoiser(base):
    return attach_lora(parts.load_denoiser(base), LORA)


def learner_of(denoiser, config):
    return Learner([TrainedGroup(adapter_parameters(denoiser), config.learning_rate)], config)


def set_gradients(learner, value):
    for tensor in learner.tensors:
        tensor.grad = torch.full_like(tensor, value)


def test_gradients_are_clipped_to_the_limit(denoiser):
    learner = learner_of(denoiser, CONFIG.model_copy(update={"max_grad_norm": 0.5}))
    set_gradients(learner, 3.0)
    clipped = []
    learner.optimizer.register_step_pre_hook(lambda *_: clipped.extend(t.grad.flatten() for t in learner.tensors))
    norm = learner.update(0)
    count = sum(tensor.numel() for tensor in learner.tensors)
    assert norm.item() == pytest.approx(3.0 * count**0.5, rel=1e-4)  # what is reported is the norm before clipping
    assert torch.cat(clipped).norm().item() == pytest.approx(0.5, rel=1e-3)


def test_gradients_within_the_limit_are_left_alone(denoiser):
    learner = learner_of(denoiser, CONFIG.model_copy(update={"max_grad_norm": 1e6}))
    set_gradients(learner, 0.5)
    seen = []
    learner.optimizer.register_step_pre_hook(lambda *_: seen.extend(t.grad.clone() for t in learner.tensors))
    learner.update(0)
    assert all(torch.equal(gradient, torch.full_like(gradient, 0.5)) for gradient in seen)


def test_only_the_adapter_moves(denoiser):
    before = {name: parameter.clone() for name, parameter in denoiser.named_parameters()}
    learner = learner_of(denoiser, CONFIG)
    set_gradients(learner, 1.0)
    learner.update(0)
    for name, parameter in denoiser.named_parameters():
        assert torch.equal(parameter, before[name]) != (name in learner.parameters), name


def test_a_model_without_adapter_cannot_be_trained(base):
    with pytest.raises(TrainingError, match="no trainable adapter"):
        learner_of(parts.load_denoiser(base), CONFIG)


def test_the_average_follows_the_parameters_and_is_only_lent(denoiser):
    learner = learner_of(denoiser, CONFIG.model_copy(update={"ema_decay": 0.5}))
    start = [tensor.detach().clone() for tensor in learner.tensors]
    set_gradients(learner, 1.0)
    learner.update(100)  # far enough for the full decay
    moved = [tensor.detach().clone() for tensor in learner.tensors]
    with learner.averaged():
        for tensor, first, last in zip(learner.tensors, start, moved, strict=True):
            torch.testing.assert_close(tensor.detach(), (first + last) / 2)
    assert all(torch.equal(tensor, last) for tensor, last in zip(learner.tensors, moved, strict=True))


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [("adamw", "cosine"), ("adamw", "linear"), ("prodigy", "constant"), ("schedule_free", "constant")],
)
def test_a_restored_learner_takes_the_same_next_step(optimizer, schedule, base, tmp_path):
    ema_decay = None if optimizer == "schedule_free" else 0.9
    config = filled_training(optimizer=optimizer, schedule=schedule, steps=10, warmup_steps=2, ema_decay=ema_decay)
    first = learner_of(attach_lora(parts.load_denoiser(base), LORA, seed=0), config)
    second = learner_of(attach_lora(parts.load_denoiser(base), LORA, seed=1), config)
    for step in range(3):
        set_gradients(first, 0.1 * (step + 1))
        first.update(step)
    save_checkpoint(tmp_path, 3, first.state(), {"optimizer": first.state_values()})
    second.restore(latest_checkpoint(tmp_path))
    for learner in (first, second):
        for step in (3, 4):
            set_gradients(learner, -0.2)
            learner.update(step)
    assert first.state().keys() == second.state().keys()
    assert all(torch.equal(first.state()[name], tensor) for name, tensor in second.state().items())
    assert first.state_values() == second.state_values()
    assert first.reported(4) == second.reported(4) and first.reported(4)["learning_rate"] > 0
    with first.averaged(), second.averaged():
        assert all(torch.equal(one, two) for one, two in zip(first.tensors, second.tensors, strict=True))


@pytest.mark.parametrize("optimizer", ["adamw", "prodigy", "schedule_free"])
def test_each_optimiser_goes_downhill(optimizer):
    weight = nn.Parameter(torch.full((4,), 3.0))
    config = filled_training(optimizer=optimizer, steps=300, weight_decay=0.0)
    rate = 1.0 if optimizer == "prodigy" else 0.1
    learner = Learner([TrainedGroup({"weight": weight}, rate)], config)
    for step in range(300):
        weight.square().sum().backward()
        learner.update(step)
    with learner.averaged():
        assert weight.abs().max() < 1.0


def test_schedule_free_lends_its_average_without_changing_what_is_learnt(denoiser):
    learner = learner_of(denoiser, filled_training(optimizer="schedule_free", steps=10))
    for step in range(4):
        set_gradients(learner, 1.0 - step)
        learner.update(step)
    before = [tensor.detach().clone() for tensor in learner.tensors]
    with learner.averaged():
        assert not all(torch.equal(tensor, old) for tensor, old in zip(learner.tensors, before, strict=True))
    assert all(torch.equal(tensor, old) for tensor, old in zip(learner.tensors, before, strict=True))
    set_gradients(learner, 1.0)
    learner.update(4)  # it is back in its training state, else this would raise


def test_groups_keep_their_own_rate():
    slow, fast = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    config = filled_training(steps=10, warmup_steps=0, schedule="constant", weight_decay=0.0)
    learner = Learner([TrainedGroup({"slow": slow}, 0.01), TrainedGroup({"fast": fast}, 0.1, "other_rate")], config)
    assert learner.reported(5) == {"learning_rate": 0.01, "other_rate": 0.1}
    set_gradients(learner, 1.0)
    learner.update(0)
    assert 1 - slow.item() == pytest.approx(0.01, rel=1e-3)
    assert 1 - fast.item() == pytest.approx(0.1, rel=1e-3)
    with pytest.raises(TrainingError, match=r"prodigy finds one rate.*\[0.01, 0.1\]"):
        Learner(learner.groups, filled_training(optimizer="prodigy"))


def test_an_optimiser_that_is_not_installed_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "prodigyopt", None)  # importing it fails
    with pytest.raises(ConfigError, match=r"training\.optimizer: prodigy .*pip install prodigyopt"):
        require_library(filled_training(optimizer="prodigy"))


def test_eight_bit_adamw_is_refused_without_a_gpu():
    weight = nn.Parameter(torch.ones(1))
    with pytest.raises(ConfigError, match=r"training\.optimizer: adamw8bit.*(cpu|pip install bitsandbytes)"):
        Learner([TrainedGroup({"weight": weight}, 0.1)], filled_training(optimizer="adamw8bit"))
