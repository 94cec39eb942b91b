from __future__ import annotations

import pytest
import torch

from sdlora.lora import LoraConfig, attach_lora
from sdlora.lora.attach import adapter_parameters
from sdlora.models import parts
from sdlora.training.batches import Batch
from sdlora.training.frozen_weights import store_as_used
from sdlora.training.loss import DenoisingLoss


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_storing_weights_as_they_are_used_changes_no_bit_of_loss_or_gradient(base, precision):
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 3, 4, 16, 16, generator=generator)
    text = torch.randn(3, 32, 16, generator=generator)
    batch = Batch(latents, noise, torch.tensor([0, 500, 999]), {"encoder_hidden_states": text})
    loss = DenoisingLoss.of_base(base, 5.0, precision, torch.device("cpu"))
    results, dtypes = [], []
    for stored in (False, True):
        unet = attach_lora(parts.load_denoiser(base), LoraConfig(rank=4))
        with torch.no_grad():
            for tensor in adapter_parameters(unet).values():
                tensor.fill_(0.05)
        if stored:
            store_as_used(unet, precision)
        value = loss.weighted(unet, batch)
        value.backward()
        results.append([value.detach(), *(tensor.grad for tensor in adapter_parameters(unet).values())])
        dtypes.append(unet.conv_in.weight.dtype)
        assert {tensor.dtype for tensor in adapter_parameters(unet).values()} == {torch.float32}
    assert all(torch.equal(plain, stored) for plain, stored in zip(*results, strict=True))
    assert dtypes == [torch.float32, torch.bfloat16 if precision == "bf16" else torch.float32]
