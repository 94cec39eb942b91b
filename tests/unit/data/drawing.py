"""Small pictures for tests, drawn from a seed."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

from PIL import Image, ImageDraw


def drawing(seed: int, side_px: int = 64) -> Image.Image:
    """A colourful picture that no other seed gives; the same picture at any size."""
    dice = random.Random(seed)
    scale = side_px / 64
    image = Image.new("RGB", (side_px, side_px), tuple(dice.randrange(256) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    for _ in range(8):
        left, top = dice.randrange(52), dice.randrange(52)
        box = [value * scale for value in (left, top, left + dice.randrange(8, 40), top + dice.randrange(8, 40))]
        colour = tuple(dice.randrange(256) for _ in range(3))
        (draw.ellipse if dice.random() < 0.5 else draw.rectangle)(box, fill=colour)
    return image


def icon(seed: int, side_px: int = 64) -> Image.Image:
    """A black drawing on white with a plain border, as emoji are."""
    dice = random.Random(seed)
    image = Image.new("RGB", (256, 256), "white")
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        points = [(dice.randrange(40, 216), dice.randrange(40, 216)) for _ in range(3)]
        if dice.random() < 0.5:
            draw.line(points, fill="black", width=dice.randrange(8, 20))
        else:
            left, top = points[0]
            draw.ellipse((left - 30, top - 30, left + 30, top + 30), outline="black", width=dice.randrange(6, 14))
    return image.resize((side_px, side_px), Image.Resampling.BOX)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def fill_folder(folder: Path, seeds: range, captions: bool = True) -> Path:
    """PNG drawings `<seed>.png`, with "drawing number <seed>" in `metadata.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        drawing(seed).save(folder / f"{seed:04d}.png")
    if captions:
        rows = [{"file_name": f"{seed:04d}.png", "text": f"drawing number {seed}"} for seed in seeds]
        with (folder / "metadata.jsonl").open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return folder
