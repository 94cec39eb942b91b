"""Devices that models run on: choice of a slot's GPUs, and their memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sdlora.core.errors import ConfigError

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def empty_device_cache(device: torch.device) -> None:
    """Return the cached memory of deleted parts to the GPU, so that other allocations can use it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def on_device(name: str) -> Iterator[None]:
    """Use the device of a slot for the length of the block, in this thread and in processes that it starts.

    This process sees all GPUs already, so PyTorch's current device is set. A process that is started here sees only the
    slot's GPUs.

    Args:
        name: `cuda:1`, or several as `cuda:0+cuda:1`, of which this thread uses the first. `auto` and `cpu` change
            nothing: a process with the slot `cpu` starts without GPUs.

    Raises:
        ConfigError: the machine has no such GPU.
    """
    if not name.startswith("cuda"):
        yield
        return
    check_device(name)
    indices = _indices(name)
    before = os.environ.get(_VISIBLE)
    os.environ[_VISIBLE] = visible_gpus(indices, before)
    try:
        with torch.cuda.device(indices[0]):
            yield
    finally:
        if before is None:
            del os.environ[_VISIBLE]
        else:
            os.environ[_VISIBLE] = before


def check_device(name: str) -> None:
    """Raise `ConfigError` if a slot names a GPU that the machine lacks."""
    count = torch.cuda.device_count()
    gpus = "1 GPU" if count == 1 else f"{count or 'no'} GPUs"
    if name.startswith("cuda") and max(_indices(name)) >= count:
        raise ConfigError(
            f"SDLORA_DEVICES: {name}, but PyTorch sees {gpus} here. Name others, or leave the variable away."
        )


def visible_gpus(indices: list[int], visible: str | None) -> str:
    """Return the value of CUDA_VISIBLE_DEVICES for some of the GPUs that it names now."""
    if visible is None:
        return ",".join(map(str, indices))
    names = [part.strip() for part in visible.split(",")]
    return ",".join(names[index] for index in indices)


def _indices(name: str) -> list[int]:
    return [int(part.partition(":")[2]) for part in name.split("+")]
