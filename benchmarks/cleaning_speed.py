"""Images per second of cleaning, in turn with cleanvision and imagededup on the same files.

    python benchmarks/cleaning_speed.py FOLDER --peers PEERS_PYTHON [--rounds 3]

FOLDER was written by `benchmarks/image_sets.py`. PEERS_PYTHON is the interpreter of an environment with cleanvision
and imagededup. Every contestant runs in a process of its own with all cores. The time of the pass includes worker
processes and databases, but no imports. The best of the rounds counts. `cpu` is the processor time of all processes,
which a busy machine disturbs less.

- first pass: collect and clean into a fresh store, everything recorded (bytes, captions, scores, verdicts, pairs)
- clean: the second half of the first pass
- measure: decode, checksums, every check, digests and fingerprints; nothing recorded
- cleanvision: all its default issues, exact and near duplicates included; nothing recorded
- hash: only decode and fingerprint, to compare with imagededup's `PHash().encode_images`
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

try:
    import psutil
except ImportError:  # in the peers' environment
    psutil = None

OURS = ("first pass", "measure", "hash")
PEERS = ("cleanvision", "imagededup")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peers", help="Python of an environment with cleanvision and imagededup")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", choices=[*OURS, *PEERS], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(RUNS[options.run](options.folder)))
        return
    best: dict[str, dict[str, float]] = {}
    for number in range(options.rounds):
        for name in (*OURS, *(PEERS if options.peers else ())):
            python = options.peers if name in PEERS else sys.executable
            for title, found in _in_a_process(python, name, options.folder).items():
                if title not in best or found["seconds"] < best[title]["seconds"]:
                    best[title] = found
        print(f"round {number + 1} of {options.rounds} done", file=sys.stderr, flush=True)
    for title, found in best.items():
        print(
            f"{title:12s} {found['images']:6.0f} images  {found['seconds']:7.2f} s  cpu {found['cpu']:7.2f} s  "
            f"{found['images'] / found['seconds']:7.0f} images/s"
        )


def _in_a_process(python: str, name: str, folder: Path) -> dict[str, dict[str, float]]:
    command = [python, __file__, str(folder), "--run", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


class Clock:
    """Time and processor time of this process and its children since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), self._cpu()

    def read(self, images: int) -> dict[str, float]:
        return {
            "images": images,
            "seconds": time.perf_counter() - self._start[0],
            "cpu": self._cpu() - self._start[1],
        }

    @staticmethod
    def _cpu() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        # Our fork server lives on and has waited for the workers in our place; the peers wait for theirs themselves.
        living = [child.cpu_times() for child in psutil.Process().children(recursive=True)] if psutil else []
        return sum(one.ru_utime + one.ru_stime for one in used) + sum(sum(one[:4]) for one in living)


def first_pass(folder: Path) -> dict[str, dict[str, float]]:
    from sdlora.data.clean import clean
    from sdlora.data.collect import collect
    from sdlora.data.config import DataConfig
    from sdlora.data.measuring import workers as _workers  # noqa: F401  # imports are not timed
    from sdlora.store.image_store import ImageStore

    config = DataConfig()
    with tempfile.TemporaryDirectory() as home, ImageStore.open(Path(home)) as store:
        whole = Clock()
        collect(store.dataset("icons"), str(folder), config)
        half = Clock()
        count = clean(store.dataset("icons"), config).counts.total
        return {"first pass": whole.read(count), "clean": half.read(count)}


def measure(folder: Path) -> dict[str, dict[str, float]]:
    return {"measure": _in_workers(_measure_files, folder)}


def hash_only(folder: Path) -> dict[str, dict[str, float]]:
    return {"hash": _in_workers(_hash_files, folder)}


def _in_workers(work: object, folder: Path) -> dict[str, float]:
    from sdlora.data.measuring.workers import measure_in_processes

    files = _files(folder)
    clock = Clock()
    assert sum(1 for _ in measure_in_processes(work, files, "white")) == len(files)
    return clock.read(len(files))


def _measure_files(paths: Sequence[str]) -> list[object]:
    from sdlora.data.measuring.measure import measure_many

    return list(measure_many(((path, _read(path)) for path in paths), 10**8))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123  # Path takes as long as reading a small file
        return file.read()


def _hash_files(paths: Sequence[str]) -> list[object]:
    from sdlora.data.decoding.decode import decode_rgb
    from sdlora.data.decoding.stack import stacks
    from sdlora.data.duplicates.fingerprint import fingerprints

    images = [decode_rgb(_read(path)) for path in paths]
    return [look for _, stack in stacks(images) for look in fingerprints(stack)]


def cleanvision(folder: Path) -> dict[str, dict[str, float]]:
    from cleanvision import Imagelab

    clock = Clock()
    lab = Imagelab(filepaths=_files(folder))
    lab.find_issues(n_jobs=os.cpu_count(), verbose=False)
    return {"cleanvision": clock.read(len(lab.issues))}


def imagededup(folder: Path) -> dict[str, dict[str, float]]:
    from imagededup.methods import PHash

    clock = Clock()
    encodings = PHash(verbose=False).encode_images(image_dir=str(folder), num_enc_workers=os.cpu_count())
    return {"imagededup": clock.read(len(encodings))}


def _files(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.iterdir() if path.suffix in (".png", ".jpg"))


RUNS = {
    "first pass": first_pass,
    "measure": measure,
    "hash": hash_only,
    "cleanvision": cleanvision,
    "imagededup": imagededup,
}

if __name__ == "__main__":
    main()
