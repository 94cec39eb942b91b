"""Cost of an image in a second dataset: added from another one, or collected again, and judged there.

    python benchmarks/second_dataset.py [--images 2000] [--side 64]

Pictures are drawn into a folder, collected into one dataset and judged. Then a second dataset takes them from the
first one, and a third one collects the folder again. Times are processor milliseconds of an image, without those of the
processes that decode.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from sdlora.data.clean import CleanReport, clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.store.image_store import ImageStore
from sdlora.store.selection import Selection


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--side", type=int, default=64, help="pixels")
    options = parser.parse_args()
    config = DataConfig(min_train_images=1, min_held_out_images=1)
    with tempfile.TemporaryDirectory() as name:
        folder = draw(Path(name) / "pictures", options.images, options.side)
        with ImageStore.open(Path(name) / "home") as store:
            first, added, collected = (store.dataset(name) for name in ("first", "added", "collected"))
            begun = cpu_seconds()
            collect(first, str(folder), config)
            begun = say("collected first", begun, options.images)
            say("judged first", begun, options.images, clean(first, config))
            begun = cpu_seconds()
            added.add_from(first, Selection())
            begun = say("added to a second", begun, options.images)
            say("judged there", begun, options.images, clean(added, config))
            begun = cpu_seconds()
            collect(collected, str(folder), config)
            begun = say("collected by a third", begun, options.images)
            say("judged there", begun, options.images, clean(collected, config))


def draw(folder: Path, count: int, side: int) -> Path:
    """Write pictures of a soft grid, each in other colours."""
    folder.mkdir()
    for number in range(count):
        coarse = np.random.default_rng(number).choice(np.array([0, 255], np.uint8), (5, 5, 3))
        picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        picture.save(folder / f"picture {number}.png")
    return folder


def cpu_seconds() -> float:
    """Return the processor seconds of this process."""
    return sum(os.times()[:2])


def say(what: str, begun: float, images: int, report: CleanReport | None = None) -> float:
    """Print the time since `begun`; return the time now."""
    now = cpu_seconds()
    facts = f", {report.decoded} decoded, {report.counts.accepted} accepted" if report else ""
    print(f"{what:<22}{1000 * (now - begun) / images:>8.2f} ms an image{facts}", flush=True)
    return now


if __name__ == "__main__":
    main()
