"""Ranking of a run's checkpoints by few and by many drawn images, and the cost of drawing.

    python benchmarks/checkpoint_metrics.py [--steps 400] [--every 50] [--home DIR]

The same run is trained twice, with few and with many held-out captions drawn at each measurement. Drawing does not
change the training, so both runs measure the same checkpoints.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from from_folder import snapshot_of

import sdlora
from sdlora.lora.config import LoraConfig
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.records.choice import load_choice
from sdlora.store.image_store import ImageStore
from sdlora.training.config import TrainingConfig
from sdlora.training.defaults import resolve_training
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.job import TrainingJob


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--counts", type=int, nargs="+", default=[32, 104])
    parser.add_argument("--home", type=Path, help="kept, so that an interrupted run can resume")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.home:
        _run(options, options.home)
        return
    with tempfile.TemporaryDirectory() as home:
        _run(options, Path(home))


def _run(options: argparse.Namespace, home: Path) -> None:
    demo = Path(sdlora.__path__[0]) / "assets" / "demo" / "first"
    with ImageStore.open(home) as store:
        snapshot, base = snapshot_of(store, demo), load_base_model(BaseModelConfig(), home)
        for count in options.counts:
            config = TrainingConfig(
                steps=options.steps,
                validation_every_steps=options.every,
                precision="bf16",
                validation_images=count,
                keep_by="kid",
            )
            resolved = resolve_training(config, base, store.home)
            folder, began = home / "runs" / str(count), time.process_time()
            fine_tune(TrainingJob(base, snapshot, LoraConfig().filled(), resolved, folder), store)
            choice = load_choice(folder)
            print(
                f"{count} drawn: {time.process_time() - began:.0f} s of the processor. {choice and choice.in_words()}"
            )
            for line in (folder / "metrics.jsonl").read_text().splitlines():
                point = json.loads(line)
                if "validation_loss" in point:
                    print("  " + ", ".join(f"{name} {value:.4f}" for name, value in point.items()), flush=True)


if __name__ == "__main__":
    main()
