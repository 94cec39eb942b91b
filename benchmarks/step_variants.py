"""Effect of a setting on the cost of the trainer's step, and on the result of the training.

    python benchmarks/step_variants.py time [--base embedded|sd15] [--precision bf16] [--variants int8 nf4 fp16 text]
    python benchmarks/step_variants.py loss [--steps 200] [--precision bf16] [--variants int8 nf4 fp16 text]

`time` takes the steps of a plain run and of each variant in turn, A B A B in one process, on the same batches. It also
prints the size of the frozen weights. `loss` trains each variant on the demo's images and prints the held-out loss.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from pairs import Pairs
from setting import fill_store, sd15_shaped_base
from torch import Tensor

import sdlora
from sdlora.core.progress import Listener
from sdlora.core.refs import BaseModelRef
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.snapshot import Snapshot, make_snapshot
from sdlora.lora.config import LoraConfig, ResolvedLora
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.records.choice import load_choice
from sdlora.store.image_store import ImageStore
from sdlora.training.config import ResolvedTraining, TrainingConfig
from sdlora.training.defaults import resolve_training
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.identity import run_digest
from sdlora.training.inputs.batches import draw_step
from sdlora.training.job import TrainingJob
from sdlora.training.setup import prepare_run


class Side:
    """A run whose steps are taken one by one, without reports, measurements and checkpoints."""

    def __init__(
        self, base: BaseModelRef, lora: ResolvedLora, config: ResolvedTraining, store: ImageStore, snapshot: Snapshot
    ) -> None:
        digest = run_digest(base.digest, snapshot.training_digest, lora, config, base.quantize)
        job = TrainingJob(base, snapshot, lora, config, store.home / "sides" / digest)
        job.folder.mkdir(parents=True, exist_ok=True)
        self.run = prepare_run(job, store, Accelerator(cpu=True))
        self.run.denoiser.train()
        self.done = 0

    def step(self) -> None:
        run = self.run
        for batch in draw_step(run.groups, run.config, self.done, run.loss.objective):
            run.learner.scaled(run.loss.weighted(run.denoiser, batch)).backward()
        run.learner.update(self.done)
        self.done += 1

    @property
    def frozen_bytes(self) -> int:
        """Bytes of the denoiser's frozen weights, with the factors of quantised layers."""
        kept: list[Tensor] = []
        for module in self.run.denoiser.modules():
            for parameter in module.parameters(recurse=False):
                if not parameter.requires_grad:
                    kept += [parameter, *_factors(module, parameter)]
        return sum(tensor.numel() * tensor.element_size() for tensor in kept)


def _factors(module: Any, parameter: Any) -> list[Tensor]:
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        return [state.absmax, state.state2.absmax]
    rows = getattr(getattr(module, "state", None), "SCB", None)
    return [rows] if rows is not None and parameter.dtype == torch.int8 else []


def settings(
    variant: str, options: argparse.Namespace, base: BaseModelRef, home: Path
) -> tuple[BaseModelRef, ResolvedLora, ResolvedTraining]:
    """Return the settings of one variant: `plain`, or with one setting changed."""
    lora = LoraConfig(rank=options.rank, targets=options.targets).filled()
    shared = {"batch_size": options.batch_size, "steps": options.steps, "precision": options.precision}
    shared |= {"micro_batch_size": options.batch_size, "validation_every_steps": max(1, options.steps // 4)}
    if variant in ("int8", "nf4"):
        base = base.model_copy(update={"quantize": variant})
    elif variant == "text":
        lora = lora.model_copy(update={"text_encoder_rank": options.rank})
    elif variant != "plain":
        shared["precision"] = variant
    return base, lora, resolve_training(TrainingConfig.model_validate(shared), base, home)


def _time(options: argparse.Namespace, home: Path) -> None:
    snapshot = fill_store(home, 64)
    with ImageStore.open(home) as store:
        base = _base(options, home)

        def side(variant: str) -> Side:
            return Side(*settings(variant, options, base, home), store, snapshot)

        plain = side("plain")
        print(f"{options.base}, batch {options.batch_size}, rank {options.rank} on {options.targets}, one thread")
        print(f"  plain, {options.precision}: {plain.frozen_bytes / 1e6:.1f} MB of frozen weights", flush=True)
        for variant in options.variants:
            other, cpu = side(variant), Pairs()
            for round_number in range(options.rounds + 1):
                seconds = [_seconds(one, options.block) for one in (other, plain)]
                if round_number:  # the first also pays for choosing kernels
                    cpu.add(*seconds)
            print(f"  {variant}: {other.frozen_bytes / 1e6:.1f} MB; CPU {cpu.summary((variant, 'plain'))}", flush=True)
            del other
            gc.collect()


def _seconds(side: Side, block: int) -> float:
    began = time.process_time()
    for _ in range(block):
        side.step()
    return (time.process_time() - began) / block


def _loss(options: argparse.Namespace, home: Path) -> None:
    demo = Path(sdlora.__path__[0]) / "assets" / "demo" / "first"
    data = DataConfig(sources=(str(demo),))
    with ImageStore.open(home) as store:
        dataset = store.dataset("icons")
        collect(dataset, data.sources[0], data)
        clean(dataset, data)
        snapshot = make_snapshot(dataset, data)
        base = load_base_model(BaseModelConfig(), home)
        for variant in ("plain", *options.variants):
            chosen, lora, config = settings(variant, options, base, home)
            losses = Losses()
            began = time.process_time()
            fine_tune(TrainingJob(chosen, snapshot, lora, config, home / "runs" / variant), store, losses)
            choice = load_choice(home / "runs" / variant)
            curve = ", ".join(f"{step}: {loss:.4f}" for step, loss in losses.by_step.items())
            print(
                f"{variant}: {time.process_time() - began:.0f} s of the processor; held-out loss {curve}; "
                f"kept {choice and choice.step}",
                flush=True,
            )


class Losses(Listener):
    """Keeps the losses on held-out images by step."""

    def __init__(self) -> None:
        self.by_step: dict[int, float] = {}

    def on_metrics(self, step: int, values: Mapping[str, float]) -> None:
        if "validation_loss" in values:
            self.by_step[step] = values["validation_loss"]


def _base(options: argparse.Namespace, home: Path) -> BaseModelRef:
    if options.base == "embedded":
        return load_base_model(BaseModelConfig(), home)
    return sd15_shaped_base(options.scratch / f"sdlora-sd15-{options.latent_side}", home, options.latent_side)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["time", "loss"])
    parser.add_argument("--base", choices=["embedded", "sd15"], default="embedded")
    parser.add_argument("--latent-side", type=int, default=16, help="of the sd15 base: 64 is 512 pixels")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--variants", nargs="+", default=["int8", "nf4", "fp16", "text"])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--targets", default="all")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--block", type=int, default=3, help="steps of each kind in a round")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        {"time": _time, "loss": _loss}[options.what](options, Path(scratch))


if __name__ == "__main__":
    main()
