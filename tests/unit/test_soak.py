"""The plan of a soak depends on its seed only, its invariants notice what is planted, its page hides no failure."""

from __future__ import annotations

import sqlite3
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from sdlora.store.image_store import ImageStore
from sdlora.store.tables.versions import ChampionHistoryTable
from tests.soak.faults import strike
from tests.soak.invariants import Known, _history, _images
from tests.soak.loop import planned_rounds
from tests.soak.machine import Machine
from tests.soak.outcomes import Life, Outcome, growth, longest_lives, record, recorded_outcomes
from tests.soak.plan import BLOCK, Fault, draw_round
from tests.soak.report import markdown, memory_problems
from tests.soak.retained import exceeded
from tests.soak.system import Asked, System
from tests.soak.world import RETENTION, World

PLANNED = "ink: new, by page; fault: none"


def test_a_round_depends_on_seed_and_number_only_and_every_block_has_all_faults() -> None:
    assert draw_round(7, 23) == draw_round(7, 23) != draw_round(8, 23)
    for seed, block in ((0, 0), (3, 2)):
        rounds = [draw_round(seed, block * BLOCK + number) for number in range(1, BLOCK + 1)]
        struck = Counter((one.fault.kind, one.fault.victim) for one in rounds if one.fault)
        assert struck[("cancel", "run")] == struck[("kill", "prefect")] == 2
        assert {victim for kind, victim in struck if kind == "kill"} == {
            "run",
            "worker",
            "watcher",
            "prefect",
            "mlflow",
            "up",
            "postgres",
        }
        assert {("reboot", "machine"), ("fill", "disk"), ("set", "clock")} <= struck.keys()
        assert {one.news for one in rounds} == {"new", "none", "bad", "rated"}


@pytest.fixture
def system(tmp_path: Path) -> System:
    """A system without servers, whose world has one good and one broken file of the style ink."""
    world = World(tmp_path)
    world.add_good("ink", 2, seed=1, round_number=0)
    folder = tmp_path / "images" / "ink"
    (folder / "broken.png").write_bytes(b"no image")
    world._record("ink", [folder / "broken.png"], "broken", 0)
    return System(world, Machine(tmp_path, is_plain=True))


def test_a_file_without_verdict_a_lost_one_and_a_stranger_are_noticed(system: System) -> None:
    from sdlora.data.collect import collect
    from sdlora.data.config import DataConfig

    with ImageStore.open(system.home) as store:
        collect(store.dataset("ink"), str(system.world.source("ink")), DataConfig())
    assert len(_images(system, Known(), "ink")) == 3  # nothing is judged so far
    with sqlite3.connect(system.home / "images.db") as database:
        database.execute("UPDATE members SET verdict = 'accepted'")
    (problem,) = _images(system, Known(), "ink")
    assert problem == "broken.png (broken) was accepted"
    with sqlite3.connect(system.home / "images.db") as database:
        database.execute("UPDATE members SET verdict = 'rejected', reason = 'no image'")
    assert _images(system, Known(), "ink") == []
    lost = system.world.files["ink"].pop(0)
    assert _images(system, Known(), "ink") == [f"member {lost.sha256[:12]} is in no file of the source"]


def test_a_gap_a_broken_chain_and_a_changed_entry_of_the_history_are_noticed(system: System) -> None:
    def entry(number: int, start: int | None, end: int | None) -> ChampionHistoryTable:
        return ChampionHistoryTable(
            style="ink", number=number, kind="promoted", version=number, from_version=start, to_version=end, who="x",
            why="", adapter_digest="a" * 64,
        )  # fmt: skip

    with ImageStore.open(system.home) as store, store.write() as session:
        session.add_all([entry(1, None, 1), entry(2, 1, 2)])
    known = Known()
    assert _history(system, known, "ink") == ["MLflow's alias is version None, the newest entry says 2"]
    with ImageStore.open(system.home) as store, store.write() as session:
        session.add(entry(4, 1, 4))
    problems = _history(system, known, "ink")
    assert problems[:2] == ["the history is numbered [1, 2, 4]", "entry 4 starts from champion 1, it was 2"]
    with sqlite3.connect(system.home / "images.db") as database:
        database.execute("UPDATE champion_history SET who = 'y' WHERE number = 1")
    assert "an entry of the history was changed or removed" in _history(system, known, "ink")


def test_growing_memory_and_failures_are_in_the_report() -> None:
    outcomes = [Outcome(number, PLANNED, memory={"up": 100.0 + number}) for number in range(20)]
    assert memory_problems(outcomes) == []
    outcomes[-1].problems.append("an image is lost")
    for outcome in outcomes[10:]:
        outcome.memory["up"] = 200.0
    assert memory_problems(outcomes) == ["memory of up: 200 MB in the last 10 rounds, 104 MB in the first"]
    page = markdown(4, outcomes)
    assert "seed 4" in page and f"- round 19 ({PLANNED})" in page and "an image is lost" in page
    assert "- memory of up: 200 MB" in page


@pytest.mark.parametrize("seed", range(5))
def test_sixty_rounds_hold_every_fault_three_times_and_runs_that_only_new_images_start(seed: int):
    rounds = [draw_round(seed, number) for number in range(1, 61)]
    faults = Counter(f"{one.fault.kind} {one.fault.victim}" for one in rounds if one.fault)
    assert faults["lose watcher"] == 60 // BLOCK
    assert min(faults.values()) >= 60 // BLOCK
    assert {one.way for one in rounds} == {"page", "terminal", "arrival"}
    assert all(one.news == "new" for one in rounds if one.way == "arrival")
    of_arrivals = [one for one in rounds if one.fault and one.fault.at in ("collected", "ready")]
    assert [one.way for one in of_arrivals] == ["arrival"] * 6


def test_a_calm_soak_has_the_same_rounds_without_their_faults():
    calm, planned = planned_rounds(1, 1, 20, is_calm=True), planned_rounds(1, 1, 20)
    assert [one.fault for one in calm] == [None] * 20 != [one.fault for one in planned]
    assert [(one.news, one.way, one.seed) for one in calm] == [(one.news, one.way, one.seed) for one in planned]


def test_a_round_that_failed_and_ran_again_stays_on_the_page_and_counts_once(tmp_path: Path):
    record(tmp_path, Outcome(1, PLANNED, 80.0, problems=["an image is lost"], commit="aaa"))
    record(tmp_path, Outcome(1, PLANNED, 40.0, commit="bbb"))
    page = markdown(0, recorded_outcomes(tmp_path))
    assert "| rounds | 1, seed 0 |" in page
    assert "mean 40.0 s" in page
    assert "commit aaa, bbb" in page
    assert f"- round 1 ({PLANNED}), commit aaa: an image is lost" in page
    assert "| invariants that failed | 1 |" in page


def test_memory_over_a_tenth_more_fails_and_a_life_ends_with_its_process():
    outcomes = [
        Outcome(number, PLANNED, memory={"up": 100.0 + number}, lives={"up": 7 if number < 16 else 8})
        for number in range(1, 21)
    ]
    assert growth(outcomes) == {"up": (105.5, 115.5)}
    assert memory_problems(outcomes) == []
    assert longest_lives(outcomes) == {"up": Life(1, 15, 101.0, 115.0)}
    for outcome in outcomes[10:]:
        outcome.memory["up"] += 1
    assert memory_problems(outcomes) == ["memory of up: 116 MB in the last 10 rounds, 106 MB in the first"]


def test_a_run_of_a_terminal_that_is_killed_has_failed(tmp_path: Path):
    log = tmp_path / "log.txt"
    log.write_text("step 3")
    asked = Asked("ink", process=subprocess.Popen(["sleep", "60"]), log=log)
    system = System(World(tmp_path), Machine(tmp_path, is_plain=True))
    strike(system, Fault("kill", "run", "start", 0.0), asked)
    assert system.has_ended(asked)
    assert (asked.state, asked.message) == ("FAILED", "exit status -9: step 3")


def test_only_the_cache_of_duels_has_a_limit(tmp_path: Path):
    for name in ("generations", "latents"):
        (tmp_path / "cache" / name).mkdir(parents=True)
    big = bytes(RETENTION["cache_megabytes"] * 10**6 + 1)
    (tmp_path / "cache" / "latents" / "image").write_bytes(big)
    assert exceeded(tmp_path) == []
    (tmp_path / "cache" / "generations" / "image").write_bytes(big)
    assert exceeded(tmp_path) == ["the cache of duels has 20.0 MB"]
