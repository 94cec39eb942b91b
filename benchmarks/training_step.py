"""Cost of a step of sdlora's loop over a bare forward, backward and optimiser step, in time and in memory.

    python benchmarks/training_step.py time [--base embedded|sd15] [--precision auto|fp32|bf16] [--against loop|peft]
    python benchmarks/training_step.py memory [--images 300]
    python benchmarks/training_step.py images [--counts 100 10000]

`time` runs `fine_tune` with reports and checkpoints, as in a user's run. At every report, as many bare steps are taken
on a second copy of the network: A B A B in one process. `--against loop` takes the arithmetic that sdlora's loop
itself takes, the real lower bound. `--against peft` takes peft's unmerged layers, so a ratio below 1 is possible.
`memory` measures each in a process of its own. `images` trains on few and on many images. The base `sd15` has Stable
Diffusion 1.5's denoiser with random weights.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from bare import BareStep
from pairs import Pairs
from setting import fill_store, read_snapshot, sd15_shaped_base

from sdlora.core.progress import Listener
from sdlora.core.refs import BaseModelRef
from sdlora.lora.config import LoraConfig
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.models.precision import remembered_probe
from sdlora.store.image_store import ImageStore
from sdlora.training.config import TrainingConfig
from sdlora.training.defaults import resolve_training
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.job import TrainingJob


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        {"time": _time, "memory": _memory, "images": _images, "one": _one}[options.what](options, Path(scratch))


def _time(options: argparse.Namespace, scratch: Path) -> None:
    snapshot = fill_store(scratch / "home", options.images)
    with ImageStore.open(scratch / "home") as store:
        base = _base(options, store.home)
        precision = _precision(options, store.home)
        lora = LoraConfig(rank=options.rank, targets=options.targets).filled()
        bare = BareStep(base, lora, precision, options.batch_size, same_arithmetic=options.against == "loop")
        wall, cpu, block = Pairs(), Pairs(), options.block
        resumed = _clocks()

        class BareSteps(Listener):
            def on_metrics(self, step: int, values: Mapping[str, float]) -> None:
                nonlocal resumed
                if "loss" in values:
                    began = _clocks()
                    for _ in range(block):
                        bare()
                    ended = _clocks()
                    if step > block:  # the first block also pays for choosing kernels
                        for pairs, start, middle, end in zip((wall, cpu), resumed, began, ended, strict=True):
                            pairs.add((middle - start) / block, (end - middle) / block)
                resumed = _clocks()

        config = TrainingConfig(
            steps=(options.rounds + 1) * block,
            batch_size=options.batch_size,
            precision=precision,
            log_every_steps=block,
            validation_every_steps=1_000_000,
            checkpoint_every_seconds=60,  # half of the clock is the bare step's: one in 30 s of ours, as by default
        )
        fine_tune(
            TrainingJob(base, snapshot, lora, resolve_training(config, base, store.home), scratch / "run"),
            store,
            BareSteps(),
        )
        print(
            f"{options.base}, batch {options.batch_size}, rank {options.rank} on {options.targets}, {precision}, "
            f"{options.threads} threads"
        )
        names = ("sdlora", "the loop's bare arithmetic" if options.against == "loop" else "peft's bare step")
        print(f"  wall: {wall.summary(names)}\n  CPU:  {cpu.summary(names)}")


def _memory(options: argparse.Namespace, scratch: Path) -> None:
    """Peak memory of a whole run, with the images encoded before and by the run itself, over the bare step's."""
    shared = ["--images", str(options.images), "--home", str(scratch)]
    fill_store(scratch, options.images)
    bare = _child("bare", options, shared)
    cold = _child("sdlora", options, [*shared, "--run", "cold"])
    warm = _child("sdlora", options, [*shared, "--run", "warm"])
    print(f"peak memory: bare step {bare['peak_mib']:.0f} MiB")
    for name, found in (("latents cached", warm), ("images encoded in the run", cold)):
        print(f"  sdlora, {name}: {found['peak_mib']:.0f} MiB, {found['peak_mib'] / bare['peak_mib']:.2f} times")


def _images(options: argparse.Namespace, scratch: Path) -> None:
    """Runs on few and on many images in turn, each in a process of its own with the images encoded before."""
    for count in options.counts:
        fill_store(scratch / str(count), count)
    found: dict[int, list[dict[str, float]]] = {count: [] for count in options.counts}
    for round_number in range(-1, options.rounds // 4):
        for count in options.counts:
            one = ["--images", str(count), "--home", str(scratch / str(count)), "--run", str(round_number)]
            result = _child("sdlora", options, one)
            if round_number >= 0:  # the first of each fills the cache
                found[count].append(result)
    for count, results in found.items():
        step = statistics.median(result["step_ms"] for result in results)
        peak = statistics.median(result["peak_mib"] for result in results)
        start = statistics.median(result["to_first_step_s"] for result in results)
        own = statistics.median(result["own_mib"] for result in results)
        print(
            f"{count} images: {step:.1f} ms a step, {start:.1f} s to the first step; peak {peak:.0f} MiB; at the end "
            f"{own:.0f} MiB without pages of files, which the system takes back when it needs them"
        )
    few, many = (found[count] for count in (min(found), max(found)))
    pairs = Pairs([r["step_ms"] / 1000 for r in many], [r["step_ms"] / 1000 for r in few])
    print(pairs.summary((f"{max(found)} images", f"{min(found)} images")))


class StepTimes(Listener):
    """Adds the time of every reported step."""

    def __init__(self, times: list[float]) -> None:
        self.times = times

    def on_metrics(self, step: int, values: Mapping[str, float]) -> None:
        if "loss" in values:
            self.times.append(time.perf_counter())


def _one(options: argparse.Namespace, scratch: Path) -> None:
    """A child process: either kind of training, then what it took, as one line of JSON."""
    began = time.perf_counter()
    home = options.home
    times: list[float] = []
    with ImageStore.open(home) as store:
        base, precision = _base(options, store.home), _precision(options, store.home)
        lora = LoraConfig(rank=options.rank, targets=options.targets).filled()
        if options.who == "bare":
            bare = BareStep(base, lora, precision, options.batch_size, same_arithmetic=options.against == "loop")
            for _ in range(options.block * 6):
                times.append(time.perf_counter())
                bare()
        else:
            config = TrainingConfig(
                steps=options.block * 6, batch_size=options.batch_size, precision=precision, log_every_steps=1
            )
            fine_tune(
                TrainingJob(base, read_snapshot(home), lora, resolve_training(config, base, home), home / options.run),
                store,
                StepTimes(times),
            )
    steps = [later - earlier for earlier, later in itertools.pairwise(times)][5:]
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {
        "step_ms": 1000 * statistics.median(steps),
        "peak_mib": peak_kib / 1024,
        "own_mib": _own_mib(),
        "to_first_step_s": times[0] - began,
    }
    print(json.dumps(result))


def _own_mib() -> float:
    """Return the memory of this process in MiB, without pages of files, which the system can take back."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1024


def _clocks() -> tuple[float, float]:
    """The clock on the wall, and this process's CPU seconds: with one thread, those ignore what else is running."""
    return time.perf_counter(), time.process_time()


def _child(who: str, options: argparse.Namespace, arguments: list[str]) -> dict[str, float]:
    given = ["--base", options.base, "--precision", options.precision, "--threads", str(options.threads)]
    given += ["--batch-size", str(options.batch_size), "--block", str(options.block), "--targets", options.targets]
    given += ["--against", options.against]
    command = [sys.executable, __file__, "one", "--who", who, *given, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _base(options: argparse.Namespace, home: Path) -> BaseModelRef:
    if options.base == "embedded":
        return load_base_model(BaseModelConfig(), home)
    return sd15_shaped_base(options.scratch / f"sdlora-sd15-{options.latent_side}", home, options.latent_side)


def _precision(options: argparse.Namespace, home: Path) -> str:
    return remembered_probe("cpu", home).precision if options.precision == "auto" else options.precision


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["time", "memory", "images", "one"])
    parser.add_argument("--base", choices=["embedded", "sd15"], default="embedded")
    parser.add_argument("--latent-side", type=int, default=16, help="of the sd15 base: 64 is 512 pixels")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--against", choices=["loop", "peft"], default="loop", help="arithmetic of the bare step")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--targets", default="all")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--block", type=int, default=10, help="steps of each kind in a round, 2 or more")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--counts", type=int, nargs=2, default=[100, 10_000])
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--who", choices=["bare", "sdlora"], help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
