"""Samples of the embedded base model, each next to its nearest training image.

    python benchmarks/base_quality.py MODEL_FOLDER IMAGE_FOLDER OUT_FOLDER [--count 64]

IMAGE_FOLDER was written by `python -m sdlora.assets.emoji base`. `grid.png` shows for each prompt the sample and the
nearest training image by feature cosine. `subject_top10` is the share of samples with a real image of the same subject
among their ten nearest of all styles (chance: about 0.02).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image, ImageDraw
from torch import Tensor

from sdlora.models.features import ImageFeatures

COMMON = (
    "red apple|banana|cherries|pineapple|strawberry|watermelon|lemon|grapes|carrot|ear of corn|hamburger|pizza|"
    "doughnut|cookie|hot beverage|beer mug|dog face|cat face|cow face|pig face|frog|panda|lion|tiger face|"
    "rabbit face|bear|koala|octopus|fish|whale|dolphin|bird|penguin|owl|butterfly|snail|lady beetle|honeybee|"
    "spider|turtle|snake|elephant|sunflower|rose|tulip|cactus|palm tree|mushroom|automobile|bus|police car|"
    "fire engine|bicycle|locomotive|airplane|rocket|sailboat|helicopter|red heart|blue heart|"
    "grinning face|crying face|smiling face with sunglasses|angry face"
).split("|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance-scale", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    rows = [json.loads(line) for line in (options.images / "metadata.jsonl").read_text().splitlines()]
    subjects = [row["text"][-1].removeprefix("an emoji of ") for row in rows]
    categories = {s: row["text"][1].rpartition(", ")[2] for s, row in zip(subjects, rows, strict=True)}
    real = torch.stack([_read(options.images / row["file_name"]) for row in rows])
    wanted = [name for name in COMMON if name in categories][: options.count]
    prompts = [f"an emoji of {name}, {categories[name]}" for name in wanted]

    pipeline = StableDiffusionPipeline.from_pretrained(options.model, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unet.set_attn_processor(AttnProcessor())
    generators = [torch.Generator().manual_seed(options.seed + i) for i in range(len(prompts))]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        images = pipeline(
            prompts,
            num_inference_steps=options.steps,
            guidance_scale=options.guidance_scale,
            generator=generators,
            output_type="np",
        ).images
    drawn = torch.from_numpy((images * 255).round().astype(np.uint8)).permute(0, 3, 1, 2)

    similarity = _unit_features(drawn) @ _unit_features(real).T
    nearest = similarity.topk(10, dim=1).indices.tolist()
    hits = [name in {subjects[i] for i in row} for name, row in zip(wanted, nearest, strict=True)]
    options.out.mkdir(parents=True, exist_ok=True)
    _grid(drawn, real[[row[0] for row in nearest]], wanted).save(options.out / "grid.png")
    print(f"subject_top10 {sum(hits) / len(hits):.3f} of {len(hits)} prompts")
    print("missed:", ", ".join(name for name, hit in zip(wanted, hits, strict=True) if not hit))


def _read(path: Path) -> Tensor:
    return torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).copy()).permute(2, 0, 1)


def _unit_features(images_uint8: Tensor) -> Tensor:
    network = ImageFeatures()
    return torch.nn.functional.normalize(torch.cat([network(chunk) for chunk in images_uint8.split(64)]), dim=1)


def _grid(drawn: Tensor, nearest: Tensor, names: list[str], columns: int = 8) -> Image.Image:
    cell_width, cell_height = 150, 90
    rows = -(-len(names) // columns)
    sheet = Image.new("RGB", (columns * cell_width, rows * cell_height), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (left, right, name) in enumerate(zip(drawn, nearest, names, strict=True)):
        x, y = index % columns * cell_width, index // columns * cell_height
        for offset, image in ((4, left), (76, right)):
            sheet.paste(Image.fromarray(image.permute(1, 2, 0).numpy()), (x + offset, y + 4))
        draw.text((x + 4, y + 70), name[:24], fill="black")
    return sheet


if __name__ == "__main__":
    main()
