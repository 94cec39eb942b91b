from __future__ import annotations

import subprocess
import sys

import pytest

from sdlora.data.measuring import workers
from tests.unit.data import hurtful


def test_an_image_that_kills_its_process_or_never_ends_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_SHARD", 4)
    monkeypatch.setattr(workers, "_SECONDS_PER_SHARD", 20.0)
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
