from __future__ import annotations

import pytest
import torch

from sdlora.lora.attach import adapter_parameters, attach_lora
from sdlora.lora.layers import adapted_layers
from sdlora.models import parts
from sdlora.training.learning import frozen_weights
from sdlora.training.learning.frozen_weights import cast_frozen_weights, fuse_lora_in_forward
from tests.settings import filled_lora
from tests.unit.training.steps import loss_and_gradient, moved


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_storing_weights_as_they_are_used_changes_no_bit_of_loss_or_gradient(base, precision):
    results, dtypes = [], []
    for stored in (False, True):
        denoiser = moved(attach_lora(parts.load_denoiser(base), filled_lora(rank=4)))
        if stored:
            cast_frozen_weights(denoiser, precision)
        results.append(loss_and_gradient(base, denoiser, precision))
        dtypes.append(denoiser.conv_in.weight.dtype)
        assert {tensor.dtype for tensor in adapter_parameters(denoiser).values()} == {torch.float32}
    assert all(torch.equal(plain, stored) for plain, stored in zip(*results, strict=True))
    assert dtypes == [torch.float32, torch.bfloat16 if precision == "bf16" else torch.float32]


def attached(base, config):
    return moved(attach_lora(parts.load_denoiser(base), config))


@pytest.mark.parametrize("method", ["lora", "rslora"])
def test_merged_layers_have_the_loss_and_the_gradients_of_separate_ones(base, method):
    config = filled_lora(rank=2, alpha=3.0, method=method)
    separate, merged = attached(base, config), attached(base, config)
    assert fuse_lora_in_forward(merged) == sum("lora_A" in name for name in adapter_parameters(separate))
    expected_loss, expected = loss_and_gradient(base, separate, "fp32")
    loss, gradient = loss_and_gradient(base, merged, "fp32")
    assert expected.norm() > 0
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def test_in_bf16_the_merged_gradient_is_no_farther_from_the_exact_one(base):
    _, exact = loss_and_gradient(base, attached(base, filled_lora(rank=2)), "fp32")
    away = {}
    for merged in (False, True):
        network = attached(base, filled_lora(rank=2))
        cast_frozen_weights(network, "bf16")
        if merged:
            assert fuse_lora_in_forward(network)
        away[merged] = float((loss_and_gradient(base, network, "bf16")[1] - exact).norm() / exact.norm())
    assert away[True] < 1.5 * away[False] < 0.2


def test_layers_that_need_their_inputs_and_large_networks_stay_as_they_are(base, monkeypatch):
    assert fuse_lora_in_forward(attached(base, filled_lora(rank=2, dropout=0.5))) == 0
    assert fuse_lora_in_forward(attached(base, filled_lora(rank=2, method="dora"))) == 0
    assert fuse_lora_in_forward(attached(base, filled_lora(rank=2, method="loha"))) == 0
    monkeypatch.setattr(frozen_weights, "MAX_WEIGHTS", 1000)
    assert fuse_lora_in_forward(attached(base, filled_lora(rank=2))) == 0


def test_small_layers_are_summed_in_groups_and_their_frozen_weights_held_once(base):
    before, network = attached(base, filled_lora(rank=2)), attached(base, filled_lora(rank=2))
    fuse_lora_in_forward(network)
    groups = [name for name, _ in network.named_buffers() if name.startswith("merged_frozen_")]
    stacked = {network.get_buffer(name).untyped_storage().data_ptr() for name in groups}
    shared = [layer for layer in adapted_layers(network).values() if _storage(layer) in stacked]
    assert len(groups) < len(shared)
    assert not set(groups) & network.state_dict().keys()
    for mine, other in zip(adapted_layers(network).values(), adapted_layers(before).values(), strict=True):
        assert torch.equal(mine.base_layer.weight, other.base_layer.weight)


def test_every_forward_pass_sees_the_weights_of_its_moment(base):
    network = attached(base, filled_lora(rank=2))
    fuse_lora_in_forward(network)
    first, _ = loss_and_gradient(base, network, "fp32")
    with torch.no_grad():
        for parameter in adapter_parameters(network).values():
            parameter.mul_(3)
    assert not torch.equal(loss_and_gradient(base, network, "fp32")[0], first)


def test_gradient_checkpointing_gives_the_merged_weights_the_same_gradients(base):
    plain, saving = attached(base, filled_lora(rank=2)), attached(base, filled_lora(rank=2))
    for network in (plain, saving):
        fuse_lora_in_forward(network)
        network.train()
    saving.enable_gradient_checkpointing()
    _, expected = loss_and_gradient(base, plain, "fp32")
    torch.testing.assert_close(loss_and_gradient(base, saving, "fp32")[1], expected)


def _storage(layer):
    return layer.base_layer.weight.untyped_storage().data_ptr()
