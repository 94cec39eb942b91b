"""Comparison with diffusers' public `train_text_to_image_lora.py`, from process start to saved adapter.

    python benchmarks/against_diffusers.py SCRIPT [--rounds 3] [--peer-rates 2e-3] [--our-rates 2e-3]
        [--our-precision auto|fp32|bf16] [--peer-precisions no|bf16]

SCRIPT is `examples/text_to_image/train_text_to_image_lora.py` of a checkout of huggingface/diffusers. It imports
torchvision, which sdlora does not need: run this in an environment that has both. Both sides take the same base,
images, adapter (the script's default rank and layers), steps, batch, schedule and loss weights, and run in turn. The
script is given images that are cleaned, split and scaled already; sdlora starts from the raw folder. Each saved file
is loaded into the base by diffusers itself, and its loss on held-out images is taken with fixed noise.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from from_folder import SIDE_PX, snapshot_of
from pairs import median_with_spread
from PIL import Image

from sdlora.core.refs import ADAPTER_WEIGHTS, BaseModelRef
from sdlora.data.pixels import load_images_uint8
from sdlora.data.snapshot import Snapshot
from sdlora.models import parts
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.store.image_store import ImageStore
from sdlora.training.inputs.encoded import Encoding, encode_rows
from sdlora.training.judging.validation import FixedNoiseValidation
from sdlora.training.learning.loss import DenoisingLoss

FIRST_BATCH = Path(__file__).parent.parent / "sdlora" / "assets" / "demo" / "first"


@dataclass(frozen=True)
class Outcome:
    """Cost of one process (seconds, peak memory), and quality of its adapter."""

    wall: float
    cpu: float
    peak_mib: float
    validation_loss: float

    def __str__(self) -> str:
        return (
            f"{self.wall:6.1f} s wall, {self.cpu:6.1f} s CPU, {self.peak_mib:5.0f} MiB, "
            f"validation loss {self.validation_loss:.4f}"
        )


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        _compare(options, Path(scratch))


def _compare(options: argparse.Namespace, scratch: Path) -> None:
    with ImageStore.open(scratch / "reference") as store:
        snapshot = snapshot_of(store, options.images)
        judge = Judge(store, snapshot)
        _write_image_folder(store, snapshot, scratch / "images")
        print(f"{len(snapshot.train)} training images, {options.steps} steps, batch {options.batch_size}, ", end="")
        print(f"rank {options.rank}, {options.threads} threads; validation loss of the base {judge.loss(None):.4f}")
        ratios: list[float] = []
        cpu_ratios: list[float] = []
        for number in range(options.rounds):
            theirs = [
                judge.timed(f"script {kind} {rate:g}", _peer(options, scratch, rate, kind), options, scratch / "peer")
                for kind in options.peer_precisions
                for rate in options.peer_rates
            ]
            ours = [
                judge.timed(
                    f"sdlora {rate:g}",
                    _ours(options, scratch / f"home-{number}-{rate}", rate),
                    options,
                    scratch / f"home-{number}-{rate}" / "run" / "adapter",
                )
                for rate in options.our_rates
            ]
            best_theirs, best_ours = (min(side, key=lambda found: found.validation_loss) for side in (theirs, ours))
            ratios.append(best_ours.wall / best_theirs.wall)
            cpu_ratios.append(best_ours.cpu / best_theirs.cpu)
            print(
                f"round {number}: wall ratio {ratios[-1]:.3f}, CPU ratio {cpu_ratios[-1]:.3f}; validation loss "
                f"{best_ours.validation_loss:.4f} against {best_theirs.validation_loss:.4f}",
                flush=True,
            )
        for name, values in (("wall", ratios), ("CPU", cpu_ratios)):
            print(f"{name} ratio, median of {len(values)} rounds: {median_with_spread(values)}")


class Judge:
    """Fixed-noise loss of any adapter file on held-out images, in fp32."""

    def __init__(self, store: ImageStore, snapshot: Snapshot) -> None:
        self.base = load_base_model(BaseModelConfig(), store.home)
        device = torch.device("cpu")
        loss = DenoisingLoss.of_base(self.base, None, "fp32", device)
        held_out = encode_rows(self.base, snapshot.held_out, store, Encoding((SIDE_PX,)), device=device)
        self.validation = FixedNoiseValidation(held_out, loss, 0, 16, device)

    def loss(self, adapter: Path | None) -> float:
        denoiser = parts.load_denoiser(self.base)
        if adapter is not None:
            tensors, alphas = StableDiffusionPipeline.lora_state_dict(str(adapter), weight_name=ADAPTER_WEIGHTS)
            StableDiffusionPipeline.load_lora_into_unet(tensors, alphas, denoiser)
        return float(torch.as_tensor(self.validation.measure(denoiser)).mean())

    def timed(self, name: str, command: list[str], options: argparse.Namespace, adapter: Path) -> Outcome:
        (adapter / ADAPTER_WEIGHTS).unlink(missing_ok=True)  # never judge the file of an earlier round
        log = options.scratch / "against_diffusers.log"
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
        began = time.perf_counter()
        with log.open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
            _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        if status:
            sys.exit(f"{name} failed:\n{log.read_text()[-3000:]}")
        outcome = Outcome(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, self.loss(adapter))
        print(f"  {name:22} {outcome}", flush=True)
        return outcome


def _peer(options: argparse.Namespace, scratch: Path, rate: float, precision: str) -> list[str]:
    base: BaseModelRef = load_base_model(BaseModelConfig(), scratch / "reference")
    settings = {
        "pretrained_model_name_or_path": base.folder,
        "train_data_dir": scratch / "images",
        "cache_dir": scratch / "datasets",
        "output_dir": scratch / "peer",
        "resolution": SIDE_PX,
        "train_batch_size": options.batch_size,
        "max_train_steps": options.steps,
        "rank": options.rank,
        "learning_rate": rate,
        "lr_scheduler": "cosine",
        "lr_warmup_steps": options.steps // 20,
        "snr_gamma": 5.0,
        "seed": 0,
        "mixed_precision": precision,
        "report_to": options.report_to,
    }
    return [sys.executable, options.script, *(f"--{name}={value}" for name, value in settings.items())]


def _ours(options: argparse.Namespace, home: Path, rate: float) -> list[str]:
    return [
        *(sys.executable, str(Path(__file__).with_name("from_folder.py")), "--images", str(options.images)),
        *("--home", str(home), "--steps", str(options.steps), "--batch-size", str(options.batch_size)),
        *("--rank", str(options.rank), "--rate", str(rate), "--precision", options.our_precision),
    ]


def _write_image_folder(store: ImageStore, snapshot: Snapshot, folder: Path) -> None:
    folder.mkdir()
    lines = []
    for row, pixels in zip(snapshot.train, load_images_uint8(store, snapshot.train, SIDE_PX), strict=True):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{row.sha256}.png")
        lines.append(json.dumps({"file_name": f"{row.sha256}.png", "text": row.captions[0]}) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script", help="train_text_to_image_lora.py")
    parser.add_argument("--images", type=Path, default=FIRST_BATCH)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rank", type=int, default=4, help="the script's own default is 4")
    parser.add_argument("--peer-rates", type=float, nargs="+", default=[2e-3], help="the best by loss counts")
    parser.add_argument("--our-rates", type=float, nargs="+", default=[2e-3])
    parser.add_argument("--peer-precisions", nargs="+", default=["no"], help="no (its default, fp32) or bf16")
    parser.add_argument("--our-precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--report-to", default="tensorboard")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    return parser.parse_args()


if __name__ == "__main__":
    main()
