"""Memory of the devices that models run on."""

from __future__ import annotations

import torch


def empty_device_cache(device: torch.device) -> None:
    """Return the cached memory of deleted parts to the GPU, so that other allocations can use it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
