from __future__ import annotations

import os
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest

from sdlora.data.duplicates import difference
from sdlora.data.duplicates.difference import differences
from sdlora.data.duplicates.fingerprint import fingerprint
from sdlora.data.measuring import workers
from sdlora.data.measuring.workers import ParallelMap
from tests.unit.data import hurtful
from tests.unit.data.drawing import icon


def test_an_image_that_kills_its_process_or_never_ends_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_IMAGES_PER_CHUNK", 4)
    monkeypatch.setattr(workers, "_SECONDS_PER_CHUNK", 20.0)
    monkeypatch.setattr(workers, "_SECONDS_PER_IMAGE", 2.0)
    shas = [f"good {number}" for number in range(70)]
    shas[5], shas[20] = "crash", "hang"
    results = list(workers.measure_in_processes(hurtful.work, shas, "white"))
    assert [one.sha256 for one in results] == shas
    problems = {one.sha256: one.problem for one in results}
    assert problems.pop("crash").startswith("decoding ends the process")
    assert problems.pop("hang") == "decoding takes longer than 2 s"
    assert set(problems.values()) == {"looked at"}
    assert all(one.scores["unreadable"] == 0 for one in results)


def test_a_worker_process_loads_no_library_of_a_database() -> None:
    loaded = "import sys, sdlora.data.measuring.workers; print('sqlalchemy' in sys.modules, 'numpy' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "True"]


def test_a_parallel_map_does_what_map_does_in_processes_once_there_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "available_cores", lambda: 2)
    looks = [fingerprint(icon(seed, side_px=side)) for side in (64, 50) for seed in range(12)]
    pairs = np.array(list(combinations(range(24), 2)))
    monkeypatch.setattr(difference, "_PAIRS_PER_ALIGNMENT", 5)
    monkeypatch.setattr(difference, "_COARSE_LIMIT", 100.0)
    with ParallelMap() as many:
        found = differences(looks, pairs, many)
        assert many._pool is not None
        assert list(many(len, [[1, 2], [3]])) == [2, 1]
    np.testing.assert_array_equal(found, differences(looks, pairs))
    assert np.isfinite(found).sum() >= 12


def test_processes_of_a_parallel_map_that_die_cost_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "available_cores", lambda: 2)
    here = os.getpid()
    with ParallelMap() as many:
        assert list(many(hurtful.end_other_processes, [here] * 8)) == [here] * 8
