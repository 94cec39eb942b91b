"""What a style of few images learns, measured on images of the same style that were never in its set.

    python -m benchmarks.few_images HOME [--kind pictograms|symbols] [--seed 0] [--count 20] [--captions]
                                    [--set training.steps=60 ...] [--duel-at 60 ...]

`pictograms` are the demo's images. `symbols` are characters of the font DejaVu Sans, cream on blue, which comes with
matplotlib. The seed draws the set, and 40 further images that judge. With `--captions` the set has the pictograms'
captions, else those of the file names. The settings are those that `sdlora new` writes. At every measurement of the
training the validation loss on the further images is printed, and at the steps of `--duel-at` the gate's answer on them
and on the set's own held-out images.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from deployments.styles.few_images import fitted_settings
from sdlora.assets import DEMO_FOLDER
from sdlora.config import PipelineConfig, parse_flags, resolve
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.snapshot import Snapshot, SnapshotRow, make_snapshot, snapshot_digest
from sdlora.evaluation.config import EvaluationConfig, GateConfig
from sdlora.evaluation.contest import Contest
from sdlora.evaluation.duel import run_duel
from sdlora.evaluation.gate import decide
from sdlora.lora.load import open_adapter
from sdlora.lora.manifest import AdapterOrigin
from sdlora.lora.save import save_adapter
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.store.image_store import ImageStore
from sdlora.training.inputs.encoded import Encoding, encode_captions, encode_rows
from sdlora.training.job import TrainingJob
from sdlora.training.judging.choosing import Chooser
from sdlora.training.judging.validation import FixedNoiseValidation
from sdlora.training.judging.validation_result import ValidationResult
from sdlora.training.setup import prepare_run

JUDGES = 40
SYMBOLS = (*range(0x2600, 0x26C4), *range(0x2701, 0x2775))
SIDE_PX = 64

# File name, caption and PNG.
Picture = tuple[str, str, bytes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path, help="a new folder")
    parser.add_argument("--kind", choices=["pictograms", "symbols"], default="pictograms")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--captions", action="store_true")
    parser.add_argument("--set", dest="flags", action="append", default=[])
    parser.add_argument("--duel-at", type=int, nargs="*", default=[])
    options = parser.parse_args()
    pictures = sorted(pictograms(options.captions) if options.kind == "pictograms" else symbols())
    random.Random(options.seed).shuffle(pictures)  # noqa: S311  # nothing secret
    folder = options.home / "images"
    folder.mkdir(parents=True)
    for name, caption, content in pictures[: options.count]:
        (folder / name).write_bytes(content)
        (folder / name).with_suffix(".txt").write_text(caption)
    with ImageStore.open(options.home) as store:
        measure(store, folder, pictures[options.count :], options.flags, options.duel_at)


def pictograms(with_captions: bool) -> Iterator[Picture]:
    for batch in ("first", "later"):
        for line in (DEMO_FOLDER / batch / "metadata.jsonl").read_text().splitlines():
            row = json.loads(line)
            file = DEMO_FOLDER / batch / row["file_name"]
            yield file.name, row["text"] if with_captions else file.stem.replace("-", " "), file.read_bytes()


def symbols() -> Iterator[Picture]:
    import matplotlib

    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 52)
    for code in SYMBOLS:
        if name := unicodedata.name(chr(code), "").lower():
            image = Image.new("RGB", (SIDE_PX, SIDE_PX), (20, 40, 110))
            middle = (SIDE_PX // 2, SIDE_PX // 2)
            ImageDraw.Draw(image).text(middle, chr(code), font=font, fill=(250, 240, 210), anchor="mm")
            file = io.BytesIO()
            image.save(file, "PNG")
            yield f"{name.replace(' ', '-')}.png", name, file.getvalue()


class WatchedChooser(Chooser):
    """Chooser that also measures every result on the further images, and keeps all weights."""

    further: FixedNoiseValidation
    denoiser: torch.nn.Module

    def consider(self, result: ValidationResult, weights: Mapping[str, Tensor]) -> None:
        super().consider(result, weights)
        self.weights[result.step] = {name: tensor.detach().clone() for name, tensor in weights.items()}
        further = float(self.further.measure(self.denoiser).mean())
        print(
            f"  step {result.step}: loss on held-out images {result.loss:.4f}, on further ones {further:.4f}",
            flush=True,
        )


def measure(
    store: ImageStore, folder: Path, further: Sequence[Picture], flags: Sequence[str], duel_at: Sequence[int]
) -> None:
    base = load_base_model(BaseModelConfig(), store.home)
    settings = {one.setting: one.value for one in fitted_settings(len(list(folder.glob("*.png"))), is_small_base=True)}
    config = resolve(_config(settings | parse_flags(flags)), base, store.home)
    dataset = store.dataset("set")
    collect(dataset, str(folder), config.data)
    clean(dataset, config.data)
    snapshot = make_snapshot(dataset, config.data)
    judged = _with_judges(store, snapshot, further)
    print(f"{len(snapshot.train)} images to train on, {len(snapshot.held_out)} held out, {JUDGES} further ones")

    job = TrainingJob(base, snapshot, config.lora, config.training, store.home / "run", "set")
    began = time.process_time()
    run = prepare_run(job, store, Accelerator(cpu=True))
    encode_captions(base, sorted({row.captions[0] for row in judged.held_out}), store.home, torch.device("cpu"))
    encoding = Encoding(config.training.resolutions, config.training.aspect_buckets, False, False, False)
    encoded = encode_rows(
        base, judged.held_out, store, encoding, device=torch.device("cpu"), on_progress=lambda *_: None
    )
    run.chooser = chooser = WatchedChooser(job.folder, config.training)
    chooser.weights, chooser.denoiser = {}, run.denoiser
    chooser.further = FixedNoiseValidation(encoded, run.loss, 0, 32, torch.device("cpu"))
    run.train()
    print(f"  {time.process_time() - began:.0f} s of the processor. {chooser.choice(run.done).in_words()}", flush=True)

    evaluation = EvaluationConfig(sampler="dpm++", steps=10)
    for step in duel_at or [chooser.choice(run.done).step]:
        run.learner.assign([chooser.weights[step][name] for name in run.learner.parameters])
        origin = AdapterOrigin(
            name="set",
            snapshot_digest=snapshot.digest,
            run_digest=job.digest,
            prediction_type=run.loss.objective.prediction,
            resolution_px=SIDE_PX,
            training={},
            captions=[],
            details={},
        )
        adapter_folder = store.home / f"step-{step}"
        save_adapter(adapter_folder, run.denoiser, config.lora, base, origin, None)
        adapter = open_adapter(adapter_folder)
        for name, images in (("held-out", snapshot), ("further", judged)):
            duel = run_duel(Contest(base, images, store, evaluation), adapter, None, adapter_folder / name)
            decision = decide(duel, GateConfig(mode="ask"))
            print(f"  step {step}, {name} images: {decision.answer}")
            print("\n".join(f"    {check.reason}" for check in decision.checks), flush=True)


def _config(settings: Mapping[str, object]) -> PipelineConfig:
    sections: dict[str, dict[str, object]] = {}
    for name, value in settings.items():
        section, key = name.split(".")
        sections.setdefault(section, {})[key] = value
    return PipelineConfig.model_validate(sections)


def _with_judges(store: ImageStore, snapshot: Snapshot, further: Sequence[Picture]) -> Snapshot:
    """Return the training rows of the snapshot with further images held out."""
    known = {row.sha256 for row in snapshot.rows}
    judges: dict[str, SnapshotRow] = {}
    for _, caption, content in further:
        sha256 = store.dataset("further").add_image(content, (caption,))
        if sha256 not in known and len(judges) < JUDGES:
            judges[sha256] = SnapshotRow(sha256, (caption,), "held_out")
    rows = sorted([*snapshot.train, *judges.values()], key=lambda row: row.sha256)
    return Snapshot(snapshot_digest(rows), tuple(rows))


if __name__ == "__main__":
    main()
