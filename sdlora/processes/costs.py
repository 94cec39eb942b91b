"""What a training costs: time over all its processes, and the most memory that it took."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import torch

from sdlora.core.files import replace_file

COSTS_FILE = "costs.json"


@contextmanager
def costs_of(folder: Path) -> Iterator[None]:
    """Add the block's time and memory to `folder/costs.json`; an interrupted run's parts add up.

    Memory on a CPU is the process's peak, and how far that is above what it held at the beginning; on a GPU what
    PyTorch had allocated at most. Figures can be compared between processes that did nothing else before: what the
    libraries keep from one training is not returned for the next.
    """
    gc.collect()
    before, began, worked = psutil.Process().memory_info().rss, time.monotonic(), time.process_time()
    reset = _reset_peak()
    try:
        yield
    finally:
        known = read_costs(folder)
        peak = _peak_bytes() if reset else 0
        above = peak if torch.cuda.is_available() else max(0, peak - before)
        costs = {
            "seconds": known.get("seconds", 0.0) + time.monotonic() - began,
            "processor_seconds": known.get("processor_seconds", 0.0) + time.process_time() - worked,
            "process_peak_bytes": max(known.get("process_peak_bytes", 0), peak),
            "training_peak_bytes": max(known.get("training_peak_bytes", 0), above),
        }
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / COSTS_FILE, (json.dumps(costs) + "\n").encode())


def read_costs(folder: Path) -> dict[str, float]:
    """The costs so far, {} if none were written; a peak of 0 means that it could not be measured."""
    with suppress(OSError, ValueError):
        return dict(json.loads((folder / COSTS_FILE).read_text()))
    return {}


def _reset_peak() -> bool:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return True
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the kernel starts its mark of the highest use again
        return True
    return False


def _peak_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
