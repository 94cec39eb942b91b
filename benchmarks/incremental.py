"""Cost of cleaning when little or nothing is new, and of a search among a million images.

    python benchmarks/incremental.py [--images 10000] [--rows 1000000] [--snapshot-rows 100000] [--keep FOLDER]

Three measurements are made in one run:

1. `sdlora collect` of a folder as a new process: all new, nothing new, 100 more files, and these in an empty store
2. lookup of 1,000 new images among synthetic hashes in a real store, with the time to load them and the peak memory
3. a snapshot of accepted images
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from sdlora.data.config import DataConfig
from sdlora.data.duplicates.fingerprint import HASH_COUNT, VERSION, Fingerprint
from sdlora.data.duplicates.search import SimilarPairs
from sdlora.data.snapshot import make_snapshot
from sdlora.data.verdicts import rules_digest
from sdlora.store.datasets import make_dataset
from sdlora.store.image_store import ImageStore
from sdlora.store.tables.base import utc_now
from sdlora.store.tables.datasets import CaptionTable, MemberTable, SourceTable
from sdlora.store.tables.images import DecodingTable, FingerprintTable, ImageTable

LOOKED_UP = 1_000
ADDED = 100
REPEATS = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--snapshot-rows", type=int, default=100_000)
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it there")
    parser.add_argument("--lookup-in", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.lookup_in:
        print(json.dumps(look_up(options.lookup_in)))
        return 0
    folder = options.keep or Path(tempfile.mkdtemp(prefix="sdlora-incremental-"))
    try:
        for name, value in [
            *commands(folder, options.images),
            *lookup(folder / "million", options.rows),
            *snapshot(folder / "snapshot", options.snapshot_rows),
        ]:
            print(f"{name:62} {value}")
    finally:
        if not options.keep:
            shutil.rmtree(folder)
    return 0


def commands(folder: Path, count: int) -> Iterator[tuple[str, str]]:
    """Times of `sdlora collect`, which collects and cleans, each a process of its own."""
    pictures, more = folder / "pictures", folder / "more"
    draw(pictures, range(count))
    draw(more, range(count, count + ADDED))
    home = folder / "home"
    yield f"collect and clean {count:,} new images", f"{_collect(pictures, home):.2f} s"
    second = min(_collect(pictures, home) for _ in range(REPEATS))
    yield f"again, nothing new (best of {REPEATS})", f"{second:.2f} s"
    shutil.copytree(home, folder / "grown")
    alone, added = [], []
    for number in range(REPEATS):
        alone.append(_collect(more, folder / f"alone-{number}"))
        shutil.copytree(folder / "grown", folder / f"grown-{number}")
        added.append(_collect(more, folder / f"grown-{number}"))
    yield f"{ADDED} images into an empty store (best of {REPEATS})", f"{min(alone):.2f} s"
    yield f"the same {ADDED} images into that of {count:,} (best of {REPEATS})", f"{min(added):.2f} s"
    yield "ratio", f"{min(added) / min(alone):.2f}"


def lookup(home: Path, count: int) -> Iterator[tuple[str, str]]:
    """Fill a store with synthetic hashes and look for look-alikes of new images, in a process of its own."""
    begun = time.perf_counter()
    fill_with_hashes(home, count)
    yield f"write {count:,} fingerprints (for comparison: no comparing)", f"{time.perf_counter() - begun:.1f} s"
    command = [sys.executable, __file__, "--lookup-in", str(home)]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    yield f"read {count:,} hashes and file them", f"{said['loading']:.2f} s"
    yield f"look up and record {LOOKED_UP:,} new images, in batches of 100", f"{said['lookup']:.2f} s"
    yield "both", f"{said['loading'] + said['lookup']:.2f} s"
    yield f"planted look-alikes found (of {LOOKED_UP // 2})", f"{said['found']}"
    yield "peak memory of that process", f"{said['peak_mib']:.0f} MiB"


def look_up(home: Path) -> dict[str, float]:
    """In a process of its own: one batch of one image, which reads all hashes, then a thousand images."""
    dice = np.random.default_rng(1)
    with ImageStore.open(home) as store:
        with store.read() as session:
            known = [row for (row,) in session.query(FingerprintTable.hashes).limit(LOOKED_UP // 2)]
        pairs = SimilarPairs()
        begun = time.perf_counter()
        with store.write() as session:
            pairs.add(session, {"f" * 64: _look(_random_hashes(dice, 1)[0])})
        loaded = time.perf_counter()
        fresh = _random_hashes(dice, LOOKED_UP)
        for place, packed in enumerate(known):  # every other one is a copy with four bits of each hash turned
            flips = np.bitwise_or.reduce(np.uint64(1) << dice.integers(0, 64, (4, HASH_COUNT)).astype(np.uint64))
            fresh[2 * place] = np.frombuffer(packed, ">u8").astype(np.uint64) ^ flips
        for start in range(0, LOOKED_UP, 100):
            with store.write() as session:
                pairs.add(session, {f"f{start + n:063x}": _look(fresh[start + n]) for n in range(100)})
        done = time.perf_counter()
        with store.read() as session:
            found = session.connection().exec_driver_sql("SELECT count(*) FROM similar_pairs").scalar_one()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"loading": loaded - begun, "lookup": done - loaded, "found": found, "peak_mib": peak}


def snapshot(home: Path, count: int) -> Iterator[tuple[str, str]]:
    """Freeze that many accepted images with a caption each, twice."""
    config = DataConfig()
    fill_with_images(home, count, rules_digest(config))
    with ImageStore.open(home) as store:
        dataset = store.dataset("icons")
        yield f"freeze a snapshot of {count:,} images", f"{_seconds(lambda: make_snapshot(dataset, config)):.2f} s"
        yield "again, nothing new", f"{_seconds(lambda: make_snapshot(dataset, config)):.2f} s"


def draw(folder: Path, seeds: range) -> None:
    """Colourful 64-pixel PNGs, no two of them alike."""
    folder.mkdir(parents=True)
    for seed in seeds:
        dice = np.random.default_rng(seed)
        image = Image.new("RGB", (64, 64), tuple(dice.integers(0, 256, 3).tolist()))
        pen = ImageDraw.Draw(image)
        for _ in range(12):
            left, top, width, height = dice.integers(4, 40, 4).tolist()
            shape = pen.ellipse if dice.random() < 0.5 else pen.rectangle
            shape((left, top, left + width, top + height), fill=tuple(dice.integers(0, 256, 3).tolist()))
        image.save(folder / f"{seed:06d}.png", compress_level=1)


def fill_with_hashes(home: Path, count: int) -> None:
    """Random fingerprints with thumbnails of their usual size."""
    dice = np.random.default_rng(0)
    with ImageStore.open(home) as store:
        for start in range(0, count, 10_000):
            hashes = _random_hashes(dice, min(10_000, count - start)).astype(">u8")
            rows = [
                {
                    "pixels_sha256": f"{start + n:064x}",
                    "version": VERSION,
                    "hashes": one.tobytes(),
                    "aspect": 1.0,
                    "thumbnail": bytes(32 * 32 * 3),
                }
                for n, one in enumerate(hashes)
            ]
            with store.write() as session:
                session.connection().execute(FingerprintTable.__table__.insert(), rows)


def fill_with_images(home: Path, count: int, rules: str) -> None:
    """Accepted images without bytes, each with a caption."""
    dice = np.random.default_rng(0)
    with ImageStore.open(home) as store, store.write() as session:
        connection = session.connection()
        dataset_id = make_dataset(session, "icons")
        source = {"id": 1, "dataset_id": dataset_id, "key": "0" * 64, "name": "synthetic"}
        connection.execute(SourceTable.__table__.insert(), [source])
        for start in range(1, count + 1, 10_000):
            ids = range(start, min(start + 10_000, count + 1))
            image = {"byte_size": 1, "collected_at": utc_now()}
            connection.execute(
                ImageTable.__table__.insert(), [image | {"id": n, "sha256": dice.bytes(32).hex()} for n in ids]
            )
            decoding = {"background": "", "decoded_as": "2", "width": 64, "height": 64}
            connection.execute(DecodingTable.__table__.insert(), [decoding | {"id": n, "image_id": n} for n in ids])
            member = {"dataset_id": dataset_id, "added_at": utc_now(), "rules": rules}
            member |= {"verdict": "accepted", "reason": "passed"}
            connection.execute(
                MemberTable.__table__.insert(),
                [member | {"id": n, "image_id": n, "decoding_id": n} for n in ids],
            )
            caption = {"source_id": 1, "position": 0, "origin": "metadata"}
            connection.execute(
                CaptionTable.__table__.insert(), [caption | {"member_id": n, "text": f"picture {n}"} for n in ids]
            )


def _random_hashes(dice: np.random.Generator, count: int) -> np.ndarray:
    return dice.integers(0, 2**64, (count, HASH_COUNT), dtype=np.uint64)


def _look(hashes: np.ndarray) -> Fingerprint:
    return Fingerprint(tuple(hashes.tolist()), 1.0, bytes(32 * 32 * 3))


def _collect(source: Path, home: Path) -> float:
    command = [sys.executable, "-m", "deployments.cli", "collect", str(source), "--home", str(home)]
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root)}
    return _seconds(lambda: subprocess.run(command, check=True, capture_output=True, cwd=root, env=environment))


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    raise SystemExit(main())
