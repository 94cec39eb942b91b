"""Processor time of `sdlora styles` and `sdlora run --all` with many styles and nothing new.

    python benchmarks/many_styles.py [--styles 50] [--images 100000] [--rounds 3] [--home FOLDER]

A state folder is made of rows and empty files: each image is in the datasets of two neighbouring styles, with a file,
a caption and a row of a snapshot in each. Each style has a champion and the record of a finished run. Then each
command runs as a process of its own, in turns. Processor time (user and system) does not depend on other processes
as much as seconds do, start-up is included, and the least of the rounds is printed with the seconds of that round.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from store_size import IMAGES_PER_TRANSACTION, fill

from deployments.styles.files import load_style, style_file, style_names
from deployments.styles.watermark import remember
from sdlora.records.champions import ScoredVersion
from sdlora.records.decision import Decision
from sdlora.store.champions import record_decision
from sdlora.store.image_store import ImageStore
from sdlora.store.inputs import dataset_digest
from sdlora.store.lineage import record_version
from sdlora.store.tables.versions import SnapshotTable
from tasks.results import Release, RunRef

STYLE = """name: {name}
data:
  sources: [{folder}]
  held_out_fraction: 0.1
training:
  steps: 400
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--styles", type=int, default=50)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--home", type=Path, help="kept, and used again if it exists; by default a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = (options.home or Path(temporary) / "home").resolve()
        if not (home / "images.db").exists():
            make_home(home, options.styles, options.images)
        for name in style_names(home):  # after the last write to the database, and with the version of today's code
            remember_run(home, name)
        print_times(home, options.rounds)


def make_home(home: Path, styles: int, images: int) -> None:
    """Fill a state folder: databases, empty image files, styles and the records of their last runs."""
    names = [f"style-{number + 1}" for number in range(styles)]
    with ImageStore.open(home) as store:
        for start in range(0, images, IMAGES_PER_TRANSACTION):
            fill(store.database, range(start, min(start + IMAGES_PER_TRANSACTION, images)), styles, of_each_image=2)
    for number, name in enumerate(names):
        make_style(home, name, number, images * 2 // styles)


def make_style(home: Path, name: str, number: int, files: int) -> None:
    """Write the file of a style, a folder of empty images, a version and its decision."""
    folder = home / "sources" / name
    folder.mkdir(parents=True)
    for file in range(files):
        (folder / f"{file:06d}.jpg").touch()
    style_file(home, name).parent.mkdir(exist_ok=True)
    style_file(home, name).write_text(STYLE.format(name=name, folder=folder))
    version = ScoredVersion(1, f"{number:064x}", f"{number:064x}", f"{number:064x}", files, "kid", 0.25, 0.9)
    decision = Decision(
        promote=True,
        reasons=("better",),
        checks=(),
        duel_digest="d" * 64,
        candidate_digest=version.adapter_digest,
        champion_digest=None,
    )
    with ImageStore.open(home) as store, store.write() as session:
        session.get_one(SnapshotTable, number + 1).digest = version.snapshot_digest
        session.flush()
        record_version(session, name, 1, version.adapter_digest, version.snapshot_digest, name)
        record_decision(session, name, version, decision, None)


def remember_run(home: Path, name: str) -> None:
    """Leave what a finished run leaves."""
    run = RunRef(digest="d" * 64, folder=home / "runs" / name / "d")
    release = Release(name=name, version=1, new=True, promoted=True, reasons=("better",), run=run)
    for file in (release.report, release.grid):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    config = load_style(home, name).config
    assert config is not None
    with ImageStore.open(home) as store, store.read() as session:
        inputs = dataset_digest(session, name)
    remember(config, home, release.model_copy(update={"inputs": inputs}))


@dataclass(frozen=True)
class Cost:
    """Cost of one process: processor seconds of user and system, and seconds by the clock."""

    processor_seconds: float
    seconds: float


def print_times(home: Path, rounds: int) -> None:
    costs: dict[str, list[Cost]] = {}
    for _ in range(rounds):
        costs.setdefault("sdlora styles", []).append(cost(home, "styles"))
        run_all = ("run", "--all")
        costs.setdefault("sdlora run --all, database untouched", []).append(cost(home, *run_all))
        with ImageStore.open(home) as store:  # a dataset of no style: no news for any of them
            store.dataset("unrelated").add_image(os.urandom(64))
        costs.setdefault("sdlora run --all, another dataset changed", []).append(cost(home, *run_all))
        costs.setdefault("sdlora run --all, once more", []).append(cost(home, *run_all))
    print("command: processor seconds, seconds")
    for command, listed in costs.items():
        least = min(listed, key=lambda found: found.processor_seconds)
        print(f"{command}: {least.processor_seconds:.2f}, {least.seconds:.1f}")


def cost(home: Path, *arguments: str) -> Cost:
    """Run the command line in a process of its own.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    command = [sys.executable, "-m", "deployments.cli", "--home", str(home), *arguments]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    if status:
        raise subprocess.CalledProcessError(status, command)
    return Cost(usage.ru_utime + usage.ru_stime, seconds)


if __name__ == "__main__":
    main()
