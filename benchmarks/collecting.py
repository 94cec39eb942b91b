"""Speed of `collect`: our readers of folders and headers, in turn with a library's on the same files.

    python benchmarks/collecting.py captions FOLDER [--rounds 15] [--unpacked]
    python benchmarks/collecting.py folders FOLDER [--rounds 15]
    python benchmarks/collecting.py flushes FOLDER [--rounds 15]
    python benchmarks/collecting.py write FOLDER [--count 10000] [--seed 0] [--texts]

`captions` reads captions inside images with Pillow, without the text after a PNG's pixels. --unpacked reads that text
too, which decodes the pixels. The command also counts the files of FOLDER in which both readers find the same.
`folders` lists and reads the folder with fsspec's local file system, as remote stores are read. Its second passes find
nothing new. `flushes` collects without flushes of the bytes, in turn with them. `write` draws JPEG pictures of noise in
ten folders, as used for the figures in docs/experiments.md.
The ratio is the library's processor or wall time divided by ours, pair by pair. Every first pass fills a new store.
On busy cores short pairs are more precise: give one of the ten folders and more rounds.
"""

from __future__ import annotations

import argparse
import gc
import io
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from pairs import Pairs
from PIL import Image

from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.sources import Source, SourceContext, embedded, folder, remote
from sdlora.data.sources.base import address_key
from sdlora.data.sources.tree import tree_of
from sdlora.store import blobs
from sdlora.store.image_store import ImageStore

FOLDERS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["captions", "folders", "flushes", "write"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--texts", action="store_true", help="write a .txt next to each picture")
    parser.add_argument("--unpacked", action="store_true")
    options = parser.parse_args()
    if options.what == "write":
        write_pictures(options.folder, options.count, options.seed, texts=options.texts)
    elif options.what == "captions":
        headers = partial(pillow_headers, unpacked=options.unpacked)
        compare_captions(options.folder, headers)
        patched = mock.patch.object(embedded, "_texts", headers)
        compare(options.folder, options.rounds, "Pillow", lambda: patched, passes=1)
    elif options.what == "flushes":
        patched = mock.patch.object(blobs, "flush")
        compare(options.folder, options.rounds, "no flush", lambda: patched, passes=1)
    else:
        patched = mock.patch.object(folder, "open_folder", open_by_fsspec)
        compare(options.folder, options.rounds, "fsspec", lambda: patched, passes=2)


def write_pictures(out: Path, count: int, seed: int, *, texts: bool) -> None:
    """Write JPEG pictures of noise, 48 px."""
    random = np.random.default_rng(seed)
    for number in range(count):
        place = out / f"{number * FOLDERS // count:02d}" / f"{number:05d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(place, quality=90)
        if texts:
            place.with_suffix(".txt").write_text(f"picture {number}")


def compare(pictures: Path, rounds: int, library: str, patched: Callable[[], Any], passes: int) -> None:
    """Time `collect` with our own code and with a library's, in turn; print the ratios of each pass."""
    names = ["first pass", "second pass"][:passes]
    wall, cpu = {name: Pairs() for name in names}, {name: Pairs() for name in names}
    for number in range(-1, rounds):  # the first round warms caches and is not counted
        results = {}
        for ours in (True, False) if number % 2 else (False, True):
            with patched() if not ours else mock.MagicMock():
                results[ours] = timed_passes(pictures, passes)
        for name, own, other in zip(names, results[True], results[False], strict=True):
            if number >= 0:
                wall[name].add(other[0], own[0])
                cpu[name].add(other[1], own[1])
    for name in names:
        print(f"{name}, wall: {wall[name].summary((library, 'ours'))}")
        print(f"{name}, processor: {cpu[name].summary((library, 'ours'))}")


def timed_passes(pictures: Path, passes: int) -> list[tuple[float, float]]:
    """(wall, processor) seconds of each pass over the pictures into one new store."""
    times = []
    with new_store() as store:
        for number in range(passes):
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            report = collect(store.dataset("icons"), str(pictures), DataConfig())
            times.append((time.perf_counter() - wall, time.process_time() - cpu))
            if (number == 0) != (report.bytes_read > 0):
                raise SystemExit(f"pass {number + 1} read {report.bytes_read:,} bytes")
    return times


@contextmanager
def new_store() -> Iterator[ImageStore]:
    home = Path(tempfile.mkdtemp(prefix="sdlora-collecting-"))
    try:
        with ImageStore.open(home) as store:
            yield store
    finally:
        shutil.rmtree(home)


def compare_captions(pictures: Path, headers: Callable[[bytes], Any]) -> None:
    """Print in how many files both readers find the same captions, and name the first other files."""
    same, captioned, others = 0, 0, []
    for path in sorted(path for path in pictures.rglob("*") if path.is_file()):
        content = path.read_bytes()
        own = embedded.embedded_captions(content)
        with mock.patch.object(embedded, "_texts", headers):
            equal = embedded.embedded_captions(content) == own
        same, captioned = same + equal, captioned + bool(own)
        if not equal:
            others.append(path.name)
    print(f"{same} of {same + len(others)} files alike, {captioned} with captions inside; not alike: {others[:5]}")


def pillow_headers(content: bytes, unpacked: bool) -> Any:
    """Read a file's text fields with Pillow, with `unpacked` also the fields after the pixels."""
    try:
        with (
            embedded._WARNINGS_LOCK,
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP", "TIFF")) as image,
        ):
            if image.format == "TIFF":
                return embedded._Texts(exif=content)
            if unpacked and image.format == "PNG":
                image.load()
            texts = {key: value for key, value in image.info.items() if isinstance(value, str)}
            xmp = image.info.get("xmp", b"")
            return embedded._Texts(
                xmp=xmp.encode() if isinstance(xmp, str) else xmp,
                exif=image.info.get("exif", b""),
                png=texts if image.format == "PNG" else {},
            )
    except Exception:  # noqa: BLE001  # damaged files can raise any error of struct, bytes and zlib
        return embedded._Texts()


def open_by_fsspec(uri: str, context: SourceContext) -> Source:
    """Open a local folder by the reader of remote ones, without a count, which would need a second listing."""
    from fsspec.implementations.local import LocalFileSystem

    fs, root = LocalFileSystem(), str(Path(uri).resolve())
    driver = remote._Driver(uri, context.config.url_total_seconds)
    tree = tree_of(context, lambda entry, size: remote._read(fs, entry, size))
    return Source(
        name=Path(root).name,
        key=address_key(root),
        count=None,
        items=lambda: tree.items(remote._listings(fs, root, driver)),
        workers=folder.WORKERS,
        unmatched=tree.unmatched,
    )


if __name__ == "__main__":
    main()
