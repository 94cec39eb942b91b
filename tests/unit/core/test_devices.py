"""A slot's device is what the run and its processes train on. No GPU is needed for what is tested here."""

from __future__ import annotations

import os
from contextlib import nullcontext

import pytest

from sdlora.core import devices
from sdlora.core.devices import check_device, on_device, visible_gpus
from sdlora.core.errors import ConfigError


@pytest.mark.parametrize(
    ("indices", "visible", "expected"), [([1], None, "1"), ([0, 2], None, "0,2"), ([1], "4, 6", "6"), ([0], "7", "7")]
)
def test_gpus_are_counted_among_those_that_the_process_sees(indices, visible, expected):
    assert visible_gpus(indices, visible) == expected


@pytest.mark.parametrize("before", [None, "2,3"])
def test_child_processes_see_only_the_gpus_of_the_slot(monkeypatch, before):
    used = []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if before:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    monkeypatch.setattr(devices.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(devices.torch.cuda, "device", lambda index: used.append(index) or nullcontext())
    with on_device("cuda:1"):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ("3" if before else "1")
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == before
    assert used == [1]


def test_a_gpu_that_the_machine_lacks_is_refused_and_the_usual_device_is_not(monkeypatch):
    monkeypatch.setattr(devices.torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="SDLORA_DEVICES: cuda:1, but PyTorch sees 1 GPU here"):
        check_device("cuda:1")
    for name in ("auto", "cpu"):
        with on_device(name):
            assert "CUDA_VISIBLE_DEVICES" not in os.environ
    monkeypatch.setattr(devices.torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="sees no GPUs"), on_device("cuda:0"):
        pass
