"""Short form of `make soak`: three rounds on a running `sdlora up`; the disk and the clock that its faults strike."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import false_clock
from tests.false_clock import FalseClock
from tests.soak import records
from tests.soak.loop import Soak, planned_rounds
from tests.soak.machine import Machine
from tests.soak.outcomes import recorded_outcomes
from tests.soak.plan import BLOCK, Fault, Round
from tests.soak.report import markdown
from tests.waiting import PATIENCE_SECONDS, wait_until

SHORT = (
    Round(1, "ink", None, "bad", "page", Fault("kill", "run", "train", 0.0), None, "ink", False, 1),
    Round(2, "neon", None, "new", "arrival", None, "promote", "neon", False, 2),
    Round(3, "ink", None, "none", "terminal", None, None, "ink", False, 3),
)


def test_bad_files_a_killed_run_and_one_that_new_images_start_keep_all_invariants(tmp_path: Path) -> None:
    said: list[str] = []
    soak = Soak(tmp_path / "soak", 0, said.append)
    outcomes = soak.run(list(SHORT))
    assert [outcome.problems for outcome in outcomes] == [[], [], []], said
    first, second, _ = outcomes
    assert "kill run at train + 0.0 s" in first.happened
    assert "new images started the run" in second.happened
    assert "neon: promote" in second.happened
    home = soak.world.home
    assert [len(records.versions_of(home, style)) for style in ("ink", "clay", "neon")] == [1, 0, 1]
    assert set(second.memory) == {"up", "prefect", "mlflow", "worker", "watcher"}
    assert min(second.memory.values()) > 10
    assert "## Failures\n\nNone." in markdown(0, recorded_outcomes(tmp_path / "soak"))
    assert soak.system.processes() == []


def test_faults_of_missing_parts_are_left_out_and_all_others_stay() -> None:
    victims = [planned.fault.victim for planned in planned_rounds(1, 1, BLOCK) if planned.fault]
    left = [planned.fault.victim for planned in planned_rounds(1, 1, BLOCK, missing=["disk", "clock"]) if planned.fault]
    assert {"disk", "clock", "machine"} <= set(victims)
    assert left == [victim for victim in victims if victim not in ("disk", "clock")]


def test_a_full_disk_takes_no_byte_until_it_is_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, clock = Machine(tmp_path), [0.0]
    if machine.disk is None:
        pytest.skip(machine.missing["disk"])
    monkeypatch.setattr("tests.soak.machine.time", SimpleNamespace(monotonic=lambda: clock[0], sleep=time.sleep))
    folder = machine.disk.path
    (folder / "file").write_bytes(bytes(2**20))

    def is_full() -> bool:
        try:
            (folder / "more").write_bytes(bytes(2**20))
        except OSError as error:
            return error.errno == errno.ENOSPC
        finally:
            (folder / "more").unlink(missing_ok=True)
        return False

    try:
        filling = threading.Thread(target=machine.disk.fill, args=(3.0,))
        filling.start()
        wait_until(is_full, "a full disk")
        (folder / "file").unlink()
        wait_until(is_full, "a disk that is full again")
        clock[0] = 3.0
        filling.join()
        assert not is_full()
    finally:
        clock[0] = 3.0
        machine.close(keeps_disk=False)
    assert not machine.disk.path.is_mount()


def test_a_clock_that_is_set_moves_the_date_of_a_process_and_not_its_steady_clock(tmp_path: Path) -> None:
    if reason := false_clock.missing():
        pytest.skip(reason)
    clock = FalseClock(tmp_path)
    clock.set(-3600)
    code = "import time; print(time.time(), time.monotonic())"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | clock.variables, stdout=subprocess.PIPE)
    date, steady = map(float, done.stdout.split())
    assert date - time.time() == pytest.approx(-3600, abs=PATIENCE_SECONDS)
    assert steady - time.monotonic() == pytest.approx(0, abs=PATIENCE_SECONDS)
