"""Cleaning in real processes that are killed at random moments, and several at once."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdlora.data.clean import clean
from sdlora.data.config import DataConfig
from tests.stores import opened_dataset
from tests.unit.data.drawing import drawing, encoded, icon

CONFIG = DataConfig()
PROJECT = Path(__file__).parents[3]

# Small portions, so that there are many moments between them.
_CLEAN = """
import sys
from pathlib import Path
from sdlora.data.config import DataConfig
from sdlora.data import clean as cleaning
from sdlora.store.image_store import ImageStore
cleaning.ROWS_PER_STATEMENT = cleaning._IMAGES_PER_BATCH = 8
print("begin", flush=True)
with ImageStore.open(Path(sys.argv[1])) as store:
    cleaning.clean(store.dataset("icons"), DataConfig())
"""


def _fill(home: Path, count: int) -> None:
    with opened_dataset(home) as dataset:
        for seed in range(count):
            image = icon(seed) if seed % 2 else drawing(seed)
            dataset.add_image(encoded(image))
            if seed % 3 == 0:
                dataset.add_image(encoded(image, "JPEG", quality=70))
            if seed % 7 == 0:
                dataset.add_image(encoded(image, "BMP"))
            if seed % 5 == 0:
                dataset.add_image(encoded(image.resize((80, 80))))
        dataset.add_image(b"no picture")


def _state(home: Path) -> tuple[object, ...]:
    """All that cleaning leaves, but for times and numbers given in the order of arrival."""
    with opened_dataset(home) as dataset, dataset.store.read() as session:
        run = session.connection().exec_driver_sql
        members = run(
            "SELECT sha256, verdict, rejected_by, reason, rules, problem, width, format FROM members "
            "JOIN images ON images.id = members.image_id JOIN decodings ON decodings.id = decoding_id"
        ).all()
        scores = run(
            "SELECT sha256, name, version, parameters, score FROM scores "
            "JOIN decodings ON decodings.id = decoding_id JOIN images ON images.id = image_id"
        ).all()
        rulings = run(
            "SELECT sha256, name, version, score, rulings.reason FROM rulings "
            "JOIN members ON members.id = member_id JOIN images ON images.id = image_id"
        ).all()
        pairs = run(
            "SELECT one.pixels_sha256, other.pixels_sha256, difference FROM similar_pairs "
            "JOIN fingerprints one ON one.id = first_id JOIN fingerprints other ON other.id = second_id"
        ).all()
        unordered = [(*sorted(pair[:2]), pair[2]) for pair in pairs]
        return tuple(sorted(map(str, rows)) for rows in (members, scores, rulings, unordered))


def _start(home: Path) -> subprocess.Popen[bytes]:
    """Start a process that cleans; returns when its libraries are loaded."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", _CLEAN, str(home)], env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"begin\n"
    return process


def _kill_at_random_moments(tmp_path: Path, images: int, kills: int) -> None:
    dice, killed, whole = random.Random(0), tmp_path / "killed", tmp_path / "whole"
    _fill(tmp_path / "filled", images)
    for home in (killed, whole):
        shutil.copytree(tmp_path / "filled", home)
    process = _start(whole)
    ready = time.monotonic()
    assert process.wait() == 0
    seconds = time.monotonic() - ready
    expected = _state(whole)
    on_the_way = 0
    for _ in range(20 * kills):
        process = _start(killed)
        # The pieces together are shorter than the whole, so that each process is killed before all is done.
        time.sleep(dice.uniform(0, seconds / kills))
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:  # the machine is quicker than at the measurement: the next kills go to another store
            assert _state(killed) == expected
            shutil.rmtree(killed)
            shutil.copytree(tmp_path / "filled", killed)
            seconds /= 2
        else:
            on_the_way += 1
        if on_the_way == kills:
            break
    assert on_the_way == kills
    with opened_dataset(killed) as dataset:
        clean(dataset, CONFIG)
    assert _state(killed) == expected


def test_cleaning_that_is_killed_five_times_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    _kill_at_random_moments(tmp_path, images=60, kills=5)


@pytest.mark.slow
def test_cleaning_that_is_killed_sixty_times_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    _kill_at_random_moments(tmp_path, images=400, kills=60)


def test_two_cleaners_at_once_end_where_one_does(tmp_path: Path) -> None:
    _fill(tmp_path / "two", 60)
    shutil.copytree(tmp_path / "two", tmp_path / "one")
    processes = [_start(tmp_path / "two") for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    with opened_dataset(tmp_path / "one") as dataset:
        clean(dataset, CONFIG)
    assert _state(tmp_path / "two") == _state(tmp_path / "one")
