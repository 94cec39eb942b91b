"""Measurement of the time and peak memory of a training."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import torch

from sdlora.core.files import replace_file
from sdlora.records.costs import COSTS_FILE, Costs


@contextmanager
def measured_costs(folder: Path) -> Iterator[None]:
    """Add the block's time and memory to `folder/costs.json`; the parts of an interrupted run add up.

    On a CPU, memory is the peak of the process, and its excess over the memory at the beginning. On a GPU it is the
    peak of PyTorch's allocations. Compare figures only between fresh processes: libraries keep memory from one
    training for the next. A peak that cannot be measured is 0.

    Raises:
        TrainingError: the costs of an earlier part cannot be read; the block is not entered.
        StorageError: the disk is full or not writable.
    """
    earlier = Costs.load(folder)
    gc.collect()
    start_bytes, start_seconds = psutil.Process().memory_info().rss, time.monotonic()
    start_processor_seconds = time.process_time()
    is_measurable = _reset_peak()
    try:
        yield
    finally:
        peak = _peak_bytes() if is_measurable else 0
        training_peak = peak if torch.cuda.is_available() else max(0, peak - start_bytes)
        costs = Costs(
            seconds=earlier.seconds + time.monotonic() - start_seconds,
            processor_seconds=earlier.processor_seconds + time.process_time() - start_processor_seconds,
            process_peak_bytes=max(earlier.process_peak_bytes, peak),
            training_peak_bytes=max(earlier.training_peak_bytes, training_peak),
        )
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / COSTS_FILE, (costs.model_dump_json(exclude_defaults=True) + "\n").encode())


def _reset_peak() -> bool:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return True
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # resets the kernel's high-water mark, VmHWM
        return True
    return False


def _peak_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
