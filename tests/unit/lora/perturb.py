from __future__ import annotations

import torch
from torch import nn

from sdlora.lora.attach import adapter_parameters


def perturb_adapter(model: nn.Module, seed: int = 0, scale: float = 0.3) -> nn.Module:
    """Give both factors values: B starts at zero, where every test of an adapter's effect passes on a no-op."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model
