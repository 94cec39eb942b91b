"""Recall and precision of the search for near duplicates among changed copies, compared with imagededup.

    python benchmarks/near_duplicates.py FOLDER [--count 250] [--peers PEERS_PYTHON] [--false-pairs]

Images of FOLDER and a copy of each under every change below are cleaned in a real store. A copy is found if it is
joined to its original. A joined pair of two different originals is wrong. PEERS_PYTHON is the interpreter of an
environment with imagededup, whose PHash reads the same files with its default distance of 10. "All" excludes the white
bars: over a drawing on white they show no edge. `--false-pairs` also cleans all images of FOLDER without copies, and
counts joined pairs of different pictures by threshold. Two pictures are different if they differ by 6 grey levels or
more in a square of a sixteenth of the side, at 128 px.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

from sdlora.data.config import MAX_DIFFERENCE, DataConfig

Change = Callable[[Image.Image], Image.Image]
Pair = tuple[str, str]
ORIGINAL = "original"
DIFFERENT_LEVELS = 6.0
HARD = ("white bar over the foot", "white bar below")
PEER = """
import json, logging, sys
from imagededup.methods import PHash
logging.disable()
found = PHash(verbose=False).find_duplicates(image_dir=sys.argv[1], max_distance_threshold=10, num_enc_workers=1)
print(json.dumps(found))
"""


def resized(image: Image.Image, scale: float) -> Image.Image:
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    return recompressed(image, "JPEG", quality)


def recompressed(image: Image.Image, kind: str, quality: int) -> Image.Image:
    out = io.BytesIO()
    image.save(out, kind, quality=quality)
    return Image.open(out).convert("RGB")


def cropped(image: Image.Image, left: float, others: float) -> Image.Image:
    width, height = image.size
    box = (left * width, others * height, (1 - others) * width, (1 - others) * height)
    return image.crop(tuple(round(edge) for edge in box))


def with_bar(image: Image.Image, colour: str, words: str, over: bool) -> Image.Image:
    """A caption bar of 12 % of the height, over the image's foot or below it."""
    width, height = image.size
    bar = max(6, round(0.12 * height))
    canvas = Image.new("RGB", (width, height if over else height + bar), colour)
    canvas.paste(image, (0, 0))
    top = canvas.height - bar
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, top, width, canvas.height), fill=colour)
    font = ImageFont.load_default(max(6, round(0.6 * bar)))
    text = "when it is monday again"[: max(4, round(width / (0.35 * bar)))]
    draw.text((width / 2, top + bar / 2), text, fill=words, anchor="mm", font=font)
    return canvas


CHANGES: dict[str, Change] = {
    "half the size": lambda image: resized(image, 0.5),
    "1.5 times the size": lambda image: resized(image, 1.5),
    "JPEG 40": lambda image: as_jpeg(image, 40),
    "5 % cut off all around": lambda image: cropped(image, 0.05, 0.05),
    "5 % cut off on the left": lambda image: cropped(image, 0.05, 0.0),
    "a third of the size, JPEG 60": lambda image: as_jpeg(resized(image, 1 / 3), 60),
    "WebP 50": lambda image: recompressed(image, "WEBP", 50),
    "32 colours": lambda image: image.quantize(32).convert("RGB"),
    "white border of 10 %": lambda image: ImageOps.expand(image, round(0.1 * image.width), "white"),
    "20 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "20 % darker": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "black bar over the foot": lambda image: with_bar(image, "black", "white", over=True),
    "black bar below": lambda image: with_bar(image, "black", "white", over=False),
    HARD[0]: lambda image: with_bar(image, "white", "black", over=True),
    HARD[1]: lambda image: with_bar(image, "white", "black", over=False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=250)
    parser.add_argument("--peers", help="Python of an environment with imagededup")
    parser.add_argument("--false-pairs", action="store_true", help="clean all images, and count pairs by threshold")
    options = parser.parse_args()
    endings = {".png", ".jpg", ".jpeg", ".webp"}
    files = sorted(path for path in options.folder.rglob("*") if path.suffix.lower() in endings)
    random.Random(0).shuffle(files)  # noqa: S311  # the same choice each time is what is wanted
    with tempfile.TemporaryDirectory() as scratch:
        copies = Path(scratch) / "copies"
        copies.mkdir()
        originals = files[: options.count]
        for number, path in enumerate(originals):
            write_copies(path, copies, number)
        differences = ours(copies, Path(scratch) / "home")
        joined = {"sdlora": below(differences, DataConfig().near_duplicate_difference)}
        if options.peers:
            joined["imagededup"] = imagededup(options.peers, copies)
        of_originals = ours(options.folder, Path(scratch) / "all") if options.false_pairs else {}
    print(f"{len(originals)} originals of {options.folder.name}, {len(CHANGES)} copies each")
    report(joined, len(originals))
    if options.false_pairs:
        report_thresholds(differences, len(originals), of_originals, files)


def write_copies(path: Path, folder: Path, number: int) -> None:
    """`<number>@<change>.png`, lossless, so that all look at the same pixels."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    image.save(folder / f"{number:05d}@{ORIGINAL}.png", compress_level=1)
    for name, change in CHANGES.items():
        change(image).save(folder / f"{number:05d}@{name.replace('%', 'percent')}.png", compress_level=1)


def ours(folder: Path, home: Path) -> dict[Pair, float]:
    """Differences of pairs of file stems, as cleaning records them; 0 for the same pixels."""
    from sdlora.data.clean import clean
    from sdlora.data.collect import collect
    from sdlora.data.duplicates.pairs import pairs_below
    from sdlora.store.image_store import ImageStore
    from sdlora.store.tables.datasets import FileTable, MemberTable
    from sdlora.store.tables.images import DecodingTable

    config = DataConfig()
    with ImageStore.open(home) as store:
        dataset = store.dataset("icons")
        collect(dataset, str(folder), config)
        clean(dataset, config)
        with store.read() as session:
            members = session.query(FileTable.path, DecodingTable.fingerprint_id).join(FileTable.member)
            rows = members.join(MemberTable.decoding).all()
            alike = pairs_below(session, MAX_DIFFERENCE)
    stems: dict[int, list[str]] = {}
    for path, fingerprint_id in rows:
        stems.setdefault(fingerprint_id, []).append(Path(path).stem)
    differences = {
        ordered(one, other): difference
        for first, second, difference in alike
        for one in stems.get(first, ())
        for other in stems.get(second, ())
    }
    return differences | {ordered(*pair): 0.0 for listed in stems.values() for pair in combinations(listed, 2)}


def below(differences: dict[Pair, float], threshold: float) -> set[Pair]:
    return {pair for pair, difference in differences.items() if difference < threshold}


def imagededup(python: str, copies: Path) -> set[Pair]:
    done = subprocess.run([python, "-c", PEER, str(copies)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    return normal((Path(one).stem, Path(other).stem) for one, others in found.items() for other in others)


def normal(pairs: Iterable[Pair]) -> set[Pair]:
    return {ordered(*pair) for pair in pairs}


def ordered(one: str, other: str) -> Pair:
    return min(one, other), max(one, other)


def report(joined: dict[str, set[Pair]], count: int) -> None:
    print(f"{'':28}" + "".join(f"{name:>14}" for name in joined))
    recalls: dict[str, list[float]] = {name: [] for name in joined}
    for change in CHANGES:
        cells = []
        for name, pairs in joined.items():
            recall = recall_of(change, pairs, count)
            cells.append(f"{recall:14.3f}")
            if change not in HARD:
                recalls[name].append(recall)
        print(f"{change:28}" + "".join(cells))
    print(f"{'recall, all':28}" + "".join(f"{sum(found) / len(found):14.3f}" for found in recalls.values()))
    precisions = [1 - len(wrong(pairs)) / max(len(pairs), 1) for pairs in joined.values()]
    print(f"{'precision':28}" + "".join(f"{precision:14.4f}" for precision in precisions))
    print(f"{'wrong pairs / all joined':28}" + "".join(f"{f'{len(wrong(p))} / {len(p)}':>14}" for p in joined.values()))
    between = {name: {pair for pair in wrong(pairs) if is_original(pair)} for name, pairs in joined.items()}
    print(f"{'of them two originals':28}" + "".join(f"{len(pairs):14d}" for pairs in between.values()))


def recall_of(change: str, pairs: set[Pair], count: int) -> float:
    stems = [(f"{n:05d}@{ORIGINAL}", f"{n:05d}@{change.replace('%', 'percent')}") for n in range(count)]
    return len(normal(stems) & pairs) / count


def report_thresholds(
    differences: dict[Pair, float], count: int, of_originals: dict[Pair, float], files: list[Path]
) -> None:
    paths = {path.stem: path for path in files}
    limits = (22.0, 16.0, 10.0, 5.0)
    pairs = below(of_originals, max(limits))
    false = {pair: of_originals[pair] for pair in pairs if differ(paths[pair[0]], paths[pair[1]])}
    print(f"all {len(files)} images: pairs of different pictures below a threshold, images in such pairs, recall")
    for limit in limits:
        joined = below(false, limit)
        recalls = [recall_of(change, below(differences, limit), count) for change in CHANGES if change not in HARD]
        images = {stem for pair in joined for stem in pair}
        print(f"{limit:6g} {len(joined):6d} {len(images):6d} {sum(recalls) / len(recalls):8.3f}")


def differ(one: Path, other: Path) -> bool:
    """Whether two files show different pictures, seen in more detail than cleaning compares."""
    first, second = (
        np.asarray(Image.open(path).convert("RGB").resize((128, 128), Image.Resampling.LANCZOS), np.float32)
        for path in (one, other)
    )
    squares = ((first - second) ** 2).mean(axis=2).reshape(16, 8, 16, 8).mean(axis=(1, 3))
    return bool(np.sqrt(squares.max()) >= DIFFERENT_LEVELS)


def wrong(pairs: Iterable[Pair]) -> list[Pair]:
    return [pair for pair in pairs if pair[0].partition("@")[0] != pair[1].partition("@")[0]]


def is_original(pair: Pair) -> bool:
    return all(stem.endswith(ORIGINAL) for stem in pair)


if __name__ == "__main__":
    main()
