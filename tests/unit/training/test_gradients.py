from __future__ import annotations

import pytest
import torch

from sdlora.lora.attach import adapter_parameters, attach_lora
from sdlora.models import parts
from sdlora.training.inputs.batches import BatchGroup, draw_step
from sdlora.training.inputs.encoded import Encoding, encode_rows
from sdlora.training.inputs.order import EpochOrder
from sdlora.training.learning.loss import DenoisingLoss
from tests.unit.training.setting import CONFIG, LORA

CPU = torch.device("cpu")


@pytest.mark.parametrize("micro_batch_size", [1, 3])
def test_small_batches_add_up_to_the_gradients_of_the_large_one(micro_batch_size, base, store, snapshot):
    encoded = encode_rows(base, snapshot.train, store, Encoding((64,)), device=CPU)
    config = CONFIG.model_copy(update={"batch_size": 7})
    order = EpochOrder(encoded.shapes(), 7, 0)
    loss = DenoisingLoss.of_base(base, 5.0, "fp32", CPU)
    denoiser = attach_lora(parts.load_denoiser(base), LORA)
    tensors = adapter_parameters(denoiser)

    def gradients(largest):
        denoiser.zero_grad()
        batches = draw_step([BatchGroup(encoded, order)], config, 3, loss.objective, micro_batch_size=largest)
        for batch in batches:
            loss.weighted(denoiser, batch).backward()
        return len(batches), {name: tensor.grad.clone() for name, tensor in tensors.items()}

    passes, whole = gradients(None)
    assert passes == 1
    passes, summed = gradients(micro_batch_size)
    assert passes == -(-7 // micro_batch_size)
    for name, gradient in whole.items():
        torch.testing.assert_close(summed[name], gradient, rtol=1e-4, atol=1e-4 * gradient.abs().max().item() + 1e-9)
    assert any(gradient.abs().max() > 0 for gradient in whole.values())
