from __future__ import annotations

import pytest
import torch

from sdlora.lora.attach import adapter_parameters, attach_lora
from sdlora.models import parts
from sdlora.training.learning.frozen_weights import cast_frozen_weights
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
