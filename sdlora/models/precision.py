"""Choice of the fastest arithmetic on a processor, by measurement.

bf16 halves the time of a training step on processors with bf16 instructions and multiplies the time on other
processors. GPUs without bf16 have fp16, which needs loss scaling. The weights stay fp32; `torch.autocast` casts the
operations that gain from lower precision.

Do not combine autocast with torch.compile on a CPU: torch 2.13 then computes wrong gradients without a warning.
Measured on an autoencoder: cosine 0.41 to the fp32 gradient, 0.99 without compile.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
from torch import nn

from sdlora.core.files import make_private_folder
from sdlora.core.refs import Precision

DTYPES: Mapping[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MIN_BF16_SPEEDUP = 1.2  # below this ratio bf16's rounding buys nothing
_MIN_FP16_CAPABILITY = (7, 0)  # the first compute capability whose tensor cores multiply fp16
_TIMING_REPEATS = 6  # the first repeat includes the choice of kernels


@dataclass(frozen=True)
class Probe:
    """Result of the measurement: `speedup` is the fp32 time over the bf16 time of a step; None if not timed."""

    precision: Precision
    speedup: float | None


@cache
def probe_precision(device_type: str) -> Probe:
    """Time a small convolution and matrix step, forward and backward, in both precisions; once per process.

    On a CPU this takes about 0.1 s. A GPU is not timed, because so small a step would measure kernel launches. There
    bf16 is chosen if the hardware supports it, else fp16 if there are tensor cores, else fp32.
    """
    if device_type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Probe("bf16", None)
        return Probe("fp16" if torch.cuda.get_device_capability() >= _MIN_FP16_CAPABILITY else "fp32", None)
    seconds = _time_steps()
    speedup = seconds["fp32"] / seconds["bf16"]
    return Probe("bf16" if speedup > MIN_BF16_SPEEDUP else "fp32", speedup)


def remembered_probe(device_type: str, home: Path) -> Probe:
    """Return the first probe recorded in this state folder, so that timing noise does not make equal runs differ."""
    path = home / "cache" / "precision.json"
    key = f"{device_type}/{torch.backends.cpu.get_cpu_capability()}/{torch.get_num_threads()}/torch-{torch.__version__}"
    try:
        entries = dict(json.loads(path.read_text()))
        if key in entries:
            return Probe(entries[key]["precision"], entries[key]["speedup"])
    except (OSError, ValueError, TypeError, KeyError):
        entries = {}  # missing or damaged: measure again
    probe = probe_precision(device_type)
    entries[key] = asdict(probe)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(OSError):
        make_private_folder(path.parent)
        partial.write_text(json.dumps(entries))
        partial.replace(path)
    return probe


def probe_of_this_machine(home: Path) -> Probe:
    """Return `remembered_probe` for the device of training: a GPU if there is one."""
    return remembered_probe("cuda" if torch.cuda.is_available() else "cpu", home)


def autocast(device_type: str, precision: Precision) -> torch.autocast:
    """Return the autocast context of a network: bf16 or fp16 arithmetic on fp32 weights, or disabled for fp32."""
    dtype = torch.bfloat16 if precision == "fp32" else DTYPES[precision]
    return torch.autocast(device_type, dtype=dtype, enabled=precision != "fp32")


def _time_steps() -> dict[str, float]:
    """Measure the CPU seconds of one small step in each precision, the best of several steps in turn.

    One thread and its CPU time are measured, so other processes on the machine hardly affect the result.
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        convolution, linear = nn.Conv2d(64, 64, 3, padding=1), nn.Linear(256, 1024)
        pixels, tokens = torch.randn(8, 64, 16, 16), torch.randn(8, 64, 256)
    best = {"fp32": float("inf"), "bf16": float("inf")}
    torch.set_num_threads(1)
    try:
        for _ in range(_TIMING_REPEATS):
            for precision, seconds in best.items():
                began = time.thread_time()
                with torch.enable_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                    outputs = convolution(pixels), linear(tokens)
                    sum(output.float().square().mean() for output in outputs).backward()
                best[precision] = min(seconds, time.thread_time() - began)
    finally:
        torch.set_num_threads(threads)
    return best
