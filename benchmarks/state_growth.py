"""Bytes that rounds of the loop leave in the state folder: by folder, on the disk, and with equal files counted once.

    python benchmarks/state_growth.py [--rounds 20] [--images 8] [--gc]

Each round adds pictures to a folder and types `sdlora run` for a small style on the embedded base. `--gc` types
`sdlora gc` after each round. A file with several names is counted once on the disk, as `du` does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

FIRST_IMAGES = 32
MEGABYTE = 1e6
STYLE = {
    "name": "growth",
    "data": {"held_out_fraction": 0.25, "min_held_out_images": 8},
    "training": {"steps": 8, "batch_size": 2, "log_every_steps": 2, "validation_every_steps": 4, "precision": "fp32"},
    "evaluation": {
        "max_prompts": 8,
        "min_prompts": 2,
        "steps": 2,
        "denoising_steps": 2,
        "resamples": 100,
        "fid_resamples": 100,
        "shown_prompts": 3,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--images", type=int, default=8, help="new pictures of each round after the first")
    parser.add_argument("--gc", action="store_true", help="type `sdlora gc` after each round")
    parser.add_argument("--folder", type=Path, help="keep the state folder here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = options.folder or Path(scratch)
        pictures, home, style = work / "pictures", work / "home", work / "growth.yaml"
        style.parent.mkdir(parents=True, exist_ok=True)
        style.write_text(yaml.safe_dump({**STYLE, "data": {**STYLE["data"], "sources": [str(pictures)]}}))
        drawn = 0
        for number in range(1, options.rounds + 1):
            count = options.images if drawn else FIRST_IMAGES
            draw(pictures, drawn, count)
            drawn += count
            sdlora("run", "--config", str(style), "--home", str(home))
            if options.gc:
                sdlora("gc", "--home", str(home))
            print(json.dumps({"round": number, **measure(home)}), flush=True)


def sdlora(*arguments: str) -> None:
    """Type a command of `sdlora`."""
    command = [sys.executable, "-m", "deployments.cli", *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise SystemExit(f"sdlora {' '.join(arguments)} failed:\n{finished.stdout}{finished.stderr}")


def draw(folder: Path, first: int, count: int, side: int = 64) -> None:
    """Write pictures of a soft grid, each in other colours."""
    folder.mkdir(exist_ok=True)
    for number in range(first, first + count):
        coarse = np.random.default_rng(number).choice(np.array([0, 255], np.uint8), (5, 5, 3))
        picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        picture.save(folder / f"picture {number}.png")


def measure(home: Path) -> dict[str, float]:
    """Measure a state folder in MB: bytes of names by top folder, bytes on the disk, bytes of distinct content."""
    by_folder: Counter[str] = Counter()
    inodes: dict[tuple[int, int], int] = {}
    contents: dict[str, int] = {}
    for parent, _, names in os.walk(home):
        for name in names:
            path = Path(parent, name)
            if path.is_symlink() or not path.is_file():
                continue
            stat = path.stat()
            key = (stat.st_dev, stat.st_ino)
            if key in inodes:
                continue
            inodes[key] = stat.st_blocks * 512
            by_folder[path.relative_to(home).parts[0]] += stat.st_size
            contents[hashlib.sha256(path.read_bytes()).hexdigest()] = stat.st_size
    folders = {name: round(size / MEGABYTE, 2) for name, size in by_folder.most_common() if size > 0.05 * MEGABYTE}
    return {
        **folders,
        "on disk": round(sum(inodes.values()) / MEGABYTE, 2),
        "distinct": round(sum(contents.values()) / MEGABYTE, 2),
    }


if __name__ == "__main__":
    main()
