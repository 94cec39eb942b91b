"""Effect and cost of prior preservation on the embedded base, with the demo's images.

    python benchmarks/prior_preservation.py [--steps 300] [--home DIR]

Adapters are trained with and without it, on the same images, noise and steps. Drift is the distance between an
adapter's and the base's pictures of other prompts. It is measured on the preserved class prompts, and on as many class
prompts that no adapter saw. Held-out loss and KID show how well the adapter learnt its own images.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

import torch
from from_folder import snapshot_of

import sdlora
from sdlora.evaluation.comparison import compare
from sdlora.evaluation.config import EvaluationConfig
from sdlora.evaluation.contest import Contest, Contestant
from sdlora.lora.config import LoraConfig
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.records.choice import load_choice
from sdlora.records.costs import Costs
from sdlora.store.image_store import ImageStore
from sdlora.training.config import TrainingConfig
from sdlora.training.defaults import resolve_training
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.inputs.prior import encode_prior
from sdlora.training.job import TrainingJob

SETTINGS: dict[str, dict[str, float | int] | None] = {
    "no prior": None,
    "prior 1, 16 beside 16": {"prior_weight": 1.0, "prior_batch_size": 16},
    "prior 1, 4 beside 16": {"prior_weight": 1.0, "prior_batch_size": 4},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--prompts", type=int, default=24, help="class prompts, and as many others")
    parser.add_argument("--prior-images", type=int, default=96)
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
    preserved, unseen = _prompts(demo, options.prompts)
    with ImageStore.open(home) as store:
        snapshot = snapshot_of(store, demo)
        base = load_base_model(BaseModelConfig(), home)
        contestants: dict[str, Contestant] = {}
        losses: dict[str, float] = {}
        for name, prior in SETTINGS.items():
            shared = {"steps": options.steps, "precision": "bf16", "validation_every_steps": 50}
            if prior:
                shared |= {"prior_prompts": preserved, "prior_images": options.prior_images, **prior}
            config = resolve_training(TrainingConfig.model_validate(shared), base, home)
            began = time.monotonic()
            encode_prior(base, config, home, torch.device("cpu"))
            drawn = time.monotonic() - began
            folder = home / "runs" / name
            began = time.process_time()
            adapter = fine_tune(TrainingJob(base, snapshot, LoraConfig().filled(), config, folder), store)
            seconds = time.process_time() - began
            contestants[name] = Contestant(base, adapter, Costs(steps=options.steps, processor_seconds=seconds))
            choice = load_choice(folder)
            losses[name] = choice.validation_loss if choice and choice.validation_loss else float("nan")
            print(
                f"{name}: {seconds:.0f} s of the processor, {drawn:.0f} s to draw, kept {choice and choice.step}, "
                f"validation loss {losses[name]:.4f}",
                flush=True,
            )
        evaluation = EvaluationConfig(max_prompts=48)
        for label, prompts in (("preserved", preserved), ("unseen", unseen)):
            folder = home / "comparisons" / label
            comparison = compare(Contest(base, snapshot, store, evaluation), contestants, prompts, "steps", folder)
            for result in comparison.contestants:
                metrics = {
                    name: result.metrics[name] for name in ("kid", "drift", "kept_psnr") if name in result.metrics
                }
                print(
                    label,
                    result.name,
                    {name: f"{e.value:.4f} [{e.low:.4f}, {e.high:.4f}]" for name, e in metrics.items()},
                )


def _prompts(demo: Path, count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Subjects that the base knows, in the words of one of its own styles; two lists without a common subject."""
    rows = [json.loads(line) for line in (demo / "metadata.jsonl").read_text().splitlines()]
    captions = sorted({row["text"].replace("an emoji of", "a noto emoji of") for row in rows})
    random.Random(0).shuffle(captions)  # noqa: S311
    return tuple(captions[:count]), tuple(captions[count : 2 * count])


if __name__ == "__main__":
    main()
