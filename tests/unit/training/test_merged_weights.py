from __future__ import annotations

import pytest
import torch

from sdlora.lora import LoraConfig, attach_lora
from sdlora.lora.attach import adapter_parameters
from sdlora.models import parts
from sdlora.training.learning import merged_weights
from sdlora.training.learning.frozen_weights import store_as_used
from sdlora.training.learning.merged_weights import merge_as_used
from tests.unit.training.steps import loss_and_gradient, moved


def attached(base, config):
    return moved(attach_lora(parts.load_denoiser(base), config))


@pytest.mark.parametrize("method", ["lora", "rslora"])
def test_merged_layers_have_the_loss_and_the_gradients_of_separate_ones(base, method):
    config = LoraConfig(rank=2, alpha=3.0, method=method)
    separate, merged = attached(base, config), attached(base, config)
    assert merge_as_used(merged) == sum("lora_A" in name for name in adapter_parameters(separate))
    expected_loss, expected = loss_and_gradient(base, separate, "fp32")
    loss, gradient = loss_and_gradient(base, merged, "fp32")
    assert expected.norm() > 0
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def test_in_bf16_the_merged_gradient_is_no_farther_from_the_exact_one(base):
    _, exact = loss_and_gradient(base, attached(base, LoraConfig(rank=2)), "fp32")
    away = {}
    for merged in (False, True):
        network = attached(base, LoraConfig(rank=2))
        store_as_used(network, "bf16")
        if merged:
            assert merge_as_used(network)
        away[merged] = float((loss_and_gradient(base, network, "bf16")[1] - exact).norm() / exact.norm())
    assert away[True] < 1.5 * away[False] < 0.2


def test_layers_that_need_their_inputs_and_large_networks_stay_as_they_are(base, monkeypatch):
    assert merge_as_used(attached(base, LoraConfig(rank=2, dropout=0.5))) == 0
    assert merge_as_used(attached(base, LoraConfig(rank=2, method="dora"))) == 0
    assert merge_as_used(attached(base, LoraConfig(rank=2, method="loha"))) == 0
    monkeypatch.setattr(merged_weights, "MOST_WEIGHTS", 1000)
    assert merge_as_used(attached(base, LoraConfig(rank=2))) == 0
