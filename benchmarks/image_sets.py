"""Folders of images for the benchmarks of collecting and cleaning.

    python benchmarks/image_sets.py emoji OUT_DIR [--count 7500]
    python benchmarks/image_sets.py photographs OUT_DIR [--count 2000] [--seed 0]
    python benchmarks/image_sets.py icons OUT_DIR --from UNPACKED_PACKAGE

`emoji` renders all distinct drawings of the npm packages behind the base model's images to 64 px PNG on white. It
needs `pip install sdlora[assets]` and npm. `photographs` are fractal noise in natural colours over a gradient with a
few soft shapes, 1024 px JPEG of 100 to 500 kB. They cost as much to decode as photographs, and no two are alike.
`icons` are those of an icon theme, such as a Debian package unpacked by `dpkg -x`: of each icon the largest PNG of 48
to 256 px, on white, each picture once.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from sdlora.assets.emoji import COLOUR_STYLES, read_iconify, render

SIDE_PX = 1024
ICON_SIDES_PX = (48, 256)
NO_NAME = re.compile(r"\d+(x\d+)?|usr|share|icons|pixmaps")
"""Folders that do not tell icons of one theme apart."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["emoji", "photographs", "icons"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from", dest="theme", type=Path, help="folder of an icon theme")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.kind == "icons":
        print(f"{write_icons(options.theme, options.out)} images in {options.out}")
        return
    with multiprocessing.get_context("spawn").Pool() as pool:
        if options.kind == "emoji":
            drawings = emoji_sources()[: options.count or 7500]
            done = pool.imap_unordered(partial(write_emoji, options.out), drawings, chunksize=50)
        else:
            seeds = [options.seed * 1_000_000 + number for number in range(options.count or 2000)]
            done = pool.imap_unordered(partial(write_photograph, options.out), seeds, chunksize=10)
        print(f"{sum(done)} images in {options.out}")


def emoji_sources() -> list[tuple[str, str]]:
    """(file name, SVG text) of every drawing, aliases left out, the styles taking turns."""
    styles = []
    for style in COLOUR_STYLES:
        distinct = {svg: name for name, svg in sorted(read_iconify(style.package).items(), reverse=True)}
        styles.append(sorted((f"{style.word}-{name}", svg) for svg, name in distinct.items()))
    longest = max(len(drawings) for drawings in styles)
    return [drawings[place] for place in range(longest) for drawings in styles if place < len(drawings)]


def write_emoji(folder: Path, drawing: tuple[str, str]) -> int:
    name, svg = drawing
    (folder / f"{name}.png").write_bytes(render(svg))
    return 1


def write_icons(theme: Path, folder: Path) -> int:
    """Write `<path without sizes>.png` of each icon; return their number."""
    largest: dict[str, tuple[int, Path]] = {}
    for path in sorted(theme.rglob("*.png")):
        if path.is_symlink() or "symbolic" in path.name:
            continue
        with Image.open(path) as image:
            side = max(image.size)
            fits = ICON_SIDES_PX[0] <= min(image.size) and side <= ICON_SIDES_PX[1]
        name = "__".join(part for part in path.relative_to(theme).parts if not NO_NAME.fullmatch(part))
        if fits and side > largest.get(name, (0, path))[0]:
            largest[name] = (side, path)
    written = set()
    for name, (_, path) in sorted(largest.items()):
        with Image.open(path) as image:
            icon = image.convert("RGBA")
        canvas = Image.new("RGBA", icon.size, "white")
        canvas.alpha_composite(icon)
        if (pixels := (icon.size, canvas.tobytes())) not in written:
            written.add(pixels)
            canvas.convert("RGB").save(folder / name, compress_level=1)
    return len(written)


def write_photograph(folder: Path, seed: int) -> int:
    photograph(seed).save(folder / f"{seed:08d}.jpg", quality=90)
    return 1


def photograph(seed: int) -> Image.Image:
    """RGB, the longer side 1024 px."""
    dice = np.random.default_rng(seed)
    height = int(dice.integers(640, SIDE_PX + 1))
    shape = (height, SIDE_PX)
    light = _noise(dice, shape, first=3, octaves=8, falloff=dice.uniform(0.5, 0.7))
    tints = np.stack([_noise(dice, shape, first=2, octaves=3, falloff=0.5) for _ in range(3)], axis=2)
    slope = np.linspace(-1, 1, height)[:, None, None] * dice.normal(0, 30, 3)
    colours = 127 + dice.normal(0, 20, 3) + slope + 45 * light[..., None] + 18 * tints + dice.normal(0, 3, (*shape, 1))
    image = Image.fromarray(colours.clip(0, 255).astype(np.uint8))
    mask = Image.new("L", (SIDE_PX // 4, height // 4))
    draw = ImageDraw.Draw(mask)
    for _ in range(int(dice.integers(1, 6))):
        left, top = dice.integers(0, SIDE_PX // 4), dice.integers(0, height // 4)
        draw.ellipse((left, top, left + int(dice.integers(15, 90)), top + int(dice.integers(15, 90))), fill=150)
    mask = mask.filter(ImageFilter.GaussianBlur(1)).resize(image.size, Image.Resampling.BILINEAR)
    image.paste(tuple(int(value) for value in dice.integers(0, 256, 3)), mask=mask)
    return image


def _noise(dice: np.random.Generator, shape: tuple[int, int], first: int, octaves: int, falloff: float) -> np.ndarray:
    """(H, W) about 0, deviation about 1: ever finer noise, each octave `falloff` as strong as the one before."""
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        size = first * 2**octave
        grid = Image.fromarray(dice.normal(0, falloff**octave, (size, size)).astype(np.float32))
        total += np.asarray(grid.resize(shape[::-1], Image.Resampling.BICUBIC))
    return total / max(float(total.std()), 1e-6)


if __name__ == "__main__":
    main()
