from __future__ import annotations

import pytest
import torch

from sdlora.checkpoints import latest_checkpoint, save_checkpoint
from sdlora.errors import TrainingError
from sdlora.lora import attach_lora
from sdlora.models import parts
from sdlora.training.learner import Learner
from tests.unit.training.setting import CONFIG, LORA


@pytest.fixture
def unet(base):
    return attach_lora(parts.load_unet(base), LORA)


def set_gradients(learner, value):
    for tensor in learner.tensors:
        tensor.grad = torch.full_like(tensor, value)


def test_gradients_are_clipped_to_the_limit(unet):
    learner = Learner(unet, CONFIG.model_copy(update={"max_grad_norm": 0.5}))
    set_gradients(learner, 3.0)
    clipped = []
    learner.optimizer.register_step_pre_hook(lambda *_: clipped.extend(t.grad.flatten() for t in learner.tensors))
    norm = learner.update(0)
    count = sum(tensor.numel() for tensor in learner.tensors)
    assert norm.item() == pytest.approx(3.0 * count**0.5, rel=1e-4)  # what is reported is the norm before clipping
    assert torch.cat(clipped).norm().item() == pytest.approx(0.5, rel=1e-3)


def test_gradients_within_the_limit_are_left_alone(unet):
    learner = Learner(unet, CONFIG.model_copy(update={"max_grad_norm": 1e6}))
    set_gradients(learner, 0.5)
    seen = []
    learner.optimizer.register_step_pre_hook(lambda *_: seen.extend(t.grad.clone() for t in learner.tensors))
    learner.update(0)
    assert all(torch.equal(gradient, torch.full_like(gradient, 0.5)) for gradient in seen)


def test_only_the_adapter_moves(unet):
    before = {name: parameter.clone() for name, parameter in unet.named_parameters()}
    learner = Learner(unet, CONFIG)
    set_gradients(learner, 1.0)
    learner.update(0)
    for name, parameter in unet.named_parameters():
        assert torch.equal(parameter, before[name]) != (name in learner.parameters), name


def test_a_model_without_adapter_cannot_be_trained(base):
    with pytest.raises(TrainingError, match="no trainable adapter"):
        Learner(parts.load_unet(base), CONFIG)


def test_the_average_follows_the_parameters_and_is_only_lent(unet):
    learner = Learner(unet, CONFIG.model_copy(update={"ema_decay": 0.5}))
    start = [tensor.detach().clone() for tensor in learner.tensors]
    set_gradients(learner, 1.0)
    learner.update(100)  # far enough for the full decay
    moved = [tensor.detach().clone() for tensor in learner.tensors]
    with learner.averaged():
        for tensor, first, last in zip(learner.tensors, start, moved, strict=True):
            torch.testing.assert_close(tensor.detach(), (first + last) / 2)
    assert all(torch.equal(tensor, last) for tensor, last in zip(learner.tensors, moved, strict=True))


def test_a_restored_learner_takes_the_same_next_step(base, tmp_path):
    config = CONFIG.model_copy(update={"ema_decay": 0.9})
    first = Learner(attach_lora(parts.load_unet(base), LORA, seed=0), config)
    second = Learner(attach_lora(parts.load_unet(base), LORA, seed=1), config)
    for step in range(3):
        set_gradients(first, 0.1 * (step + 1))
        first.update(step)
    save_checkpoint(tmp_path, 3, first.state(), {})
    second.restore(latest_checkpoint(tmp_path))
    for learner in (first, second):
        set_gradients(learner, -0.2)
        learner.update(3)
    assert first.state().keys() == second.state().keys()
    assert all(torch.equal(first.state()[name], tensor) for name, tensor in second.state().items())
