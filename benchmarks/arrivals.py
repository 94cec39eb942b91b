"""Images that arrive at random, while the watcher is killed: none is missed, and none starts two runs.

python -m benchmarks.arrivals [--arrivals 200] [--kill-every 10] [--seed 0]

A real Prefect server, a real image database and the real watcher as a process. In place of a training, a run records
that it dealt with the data. Files come in several ways: whole, in two halves, and renamed from a partial name.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed
from sqlalchemy import select

from deployments.environment import PREFECT_FILE, PROJECT
from deployments.register import ensure_process_pool, load_deployments
from deployments.styles.deployments import StyleDeployments
from sdlora.store.image_store import ImageStore
from sdlora.store.inputs import dataset_digest
from sdlora.store.style_records import record_dealt_with
from sdlora.store.tables.datasets import MemberTable
from sdlora.store.tables.images import ImageTable
from sdlora.store.tables.triggers import StartTable
from tests.settings import make_style

STYLE = "arrivals"
QUIET_MINUTES = 0.02
PATIENCE_SECONDS = 180.0


@dataclass
class Counts:
    """Figures of one simulation: images that came, and how often a run dealt with each; runs without any news."""

    arrived: int
    missed: int
    twice: int
    runs: int
    idle_runs: int
    kills: int
    seconds: float


class Runs(threading.Thread):
    """Worker: takes each run that was created, and records that it dealt with the data."""

    def __init__(self, home: Path, seed: int) -> None:
        super().__init__(daemon=True)
        self.home, self.stopping = home, threading.Event()
        self.random = random.Random(seed)  # noqa: S311  # no secret
        self.dealt: list[set[str]] = []
        self.started: dict[UUID, float] = {}

    def run(self) -> None:
        while not self.stopping.wait(0.1):
            with get_client(sync_client=True) as client:
                for one in client.read_flow_runs():
                    if one.id not in self.started and one.idempotency_key and STYLE in one.idempotency_key:
                        self.started[one.id] = time.time()
                        time.sleep(self.random.random())
                        self.dealt.append(self._deal())
                        client.set_flow_run_state(one.id, Completed(), force=True)

    def _deal(self) -> set[str]:
        with ImageStore.open(self.home) as store, store.write() as session:
            images = set(session.scalars(select(ImageTable.sha256).join(MemberTable)))
            record_dealt_with(session, STYLE, dataset_digest(session, STYLE), "0" * 64)
        return images


def simulate(folder: Path, arrivals: int, kill_every: int, seed: int) -> Counts:
    """Let images arrive in `folder`; `PREFECT_API_URL` names a server."""
    home, images = folder / "home", folder / "images"
    chance = random.Random(seed)  # noqa: S311  # no secret
    images.mkdir(parents=True)
    trigger = {"min_new_images": 1, "quiet_minutes": QUIET_MINUTES}
    make_style(home, STYLE, images, data={"min_train_images": 2, "min_held_out_images": 1}, trigger=trigger)
    os.environ |= {"SDLORA_HOME": str(home), "SDLORA_PROJECT": str(PROJECT)}
    ensure_process_pool("local")
    (template,) = (one for one in load_deployments(PREFECT_FILE, PROJECT, {}) if one.name == "retrain/retrain")
    StyleDeployments(home, template, None, print).register_all()
    for index in range(2):  # a run needs three images
        _picture(chance).save(images / f"first-{index}.png")
    runs, began, kills = Runs(home, seed), time.monotonic(), 0
    runs.start()
    watcher = _watcher(home)
    try:
        for number in range(1, arrivals + 1):
            _arrive(images, number, chance)
            if number % kill_every == 0:
                time.sleep(chance.uniform(0, 4))
                watcher.send_signal(signal.SIGKILL)
                watcher.wait()
                kills += 1
                watcher = _watcher(home)
            time.sleep(chance.choice((0, 0.1, 0.5, 2, 5)))
        expected = {_sha256(path) for path in images.rglob("*.png")}
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and not (runs.dealt and runs.dealt[-1] >= expected):
            time.sleep(0.5)
        time.sleep(5)  # a run that is one too many would come now
    finally:
        watcher.kill()
        watcher.wait()
        runs.stopping.set()
        runs.join()
    with ImageStore.open(home) as store, store.read() as session:
        keys = session.scalars(select(StartTable.key)).all()
    known: set[str] = set()
    idle = 0
    for dealt in runs.dealt:
        idle += not dealt - known
        known |= dealt
    return Counts(
        arrived=len(expected),
        missed=len(expected - known),
        twice=len(runs.started) - len(set(keys)) + idle,
        runs=len(runs.started),
        idle_runs=idle,
        kills=kills,
        seconds=time.monotonic() - began,
    )


def _watcher(home: Path) -> subprocess.Popen[bytes]:
    log = (home / "watcher.log").open("ab")
    environment = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value()), "SDLORA_HOME": str(home)}
    command = [sys.executable, "-m", "deployments.arrivals.watcher"]
    return subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=log, stderr=log)


def _picture(chance: random.Random) -> Image.Image:
    pixels = np.random.default_rng(chance.getrandbits(32)).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _arrive(images: Path, number: int, chance: random.Random) -> None:
    """Bring one image in one of three ways."""
    folder = images / chance.choice((".", "a", "a/b"))
    folder.mkdir(parents=True, exist_ok=True)
    target, partial = folder / f"{number}.png", folder / f"{number}.png.part"
    _picture(chance).save(partial, format="PNG")
    way = chance.choice(("renamed", "whole", "halves"))
    if way == "renamed":
        partial.rename(target)
        return
    content = partial.read_bytes()
    partial.unlink()
    with target.open("wb") as file:
        file.write(content[: len(content) // 2])
        if way == "halves":
            file.flush()
            time.sleep(chance.uniform(0.2, 0.8))
        file.write(content[len(content) // 2 :])


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    """Print the figures of one simulation."""
    from prefect.testing.utilities import prefect_test_harness

    parser = argparse.ArgumentParser()
    parser.add_argument("--arrivals", type=int, default=200)
    parser.add_argument("--kill-every", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, prefect_test_harness(server_startup_timeout=120):
        counts = simulate(Path(folder), arguments.arrivals, arguments.kill_every, arguments.seed)
    print(counts)


if __name__ == "__main__":
    main()
