"""The library is a guest in its caller's process, such as a notebook's: it leaves the process as it was."""

from __future__ import annotations

import ctypes
import gc
import json
import locale
import logging
import os
import random
import signal
import sys
import warnings
from pathlib import Path
from typing import ClassVar

import numpy
import pytest
import torch

from sdlora.adapter import LoRA
from sdlora.models.stable_diffusion import StableDiffusion
from tests.settings import filled_lora
from tests.unit.training.setting import CONFIG, Callbacks


def state_of_process() -> dict[str, object]:
    """Everything that a library can change for the whole process."""
    root = logging.getLogger()
    return {
        "gc thresholds": gc.get_threshold(),
        "gc enabled": gc.isenabled(),
        "gc frozen": gc.get_freeze_count(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "generator of torch": torch.get_rng_state().tolist(),
        "generator of numpy": str(numpy.random.get_state()),  # noqa: NPY002  # the global one
        "generator of python": random.getstate(),
        "environment": dict(os.environ),
        "handlers of signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "handlers of logs": (root.level, list(root.handlers)),
        "warnings": list(warnings.filters),
        "recursion": sys.getrecursionlimit(),
        "folder": Path.cwd(),
        "locale": locale.setlocale(locale.LC_ALL),
    }


class RecordingLibrary(ctypes.CDLL):
    """C library that records the names of the functions that Python code asks it for."""

    names: ClassVar[set[str]] = set()

    def __getattr__(self, name: str) -> object:
        self.names.add(name)
        return super().__getattr__(name)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_training_merging_and_drawing_leave_the_callers_process_as_it_was(
    base, store, snapshot, run_folder, threads, monkeypatch
):
    monkeypatch.setattr(ctypes, "CDLL", RecordingLibrary)
    config = CONFIG.model_copy(update={"steps": 2})
    torch.set_num_threads(1)
    lora = LoRA(StableDiffusion.from_ref(base), filled_lora(rank=2, targets="attention", dropout=0.1))
    with pytest.raises(ZeroDivisionError):
        lora.fine_tune(snapshot, store, config, run_folder, listener=Callbacks(on_metrics=lambda *_: 1 / 0))
    torch.set_num_threads(2)
    before = state_of_process()
    lora.fine_tune(snapshot, store, config, run_folder)  # continues on one thread, as it began
    assert json.loads((run_folder / "config.json").read_text())["threads"] == 1
    lora.update_parameters().generate_image("a red circle", steps=1)
    StableDiffusion.from_ref(base, lora.adapter)
    after = state_of_process()
    assert [name for name in before if before[name] != after[name]] == []
    assert "mallopt" not in RecordingLibrary.names
    assert "malloc_trim" in RecordingLibrary.names  # so its names are recorded
