"""Parts of the soak: its plan covers what it promises, its faults are told as they are, its page hides no failure."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.soak.faults import strike
from tests.soak.loop import planned_rounds
from tests.soak.outcomes import Life, Outcome, growth, longest_lives, record, recorded_outcomes
from tests.soak.plan import BLOCK, Fault, draw_round
from tests.soak.report import markdown, memory_problems
from tests.soak.retained import exceeded
from tests.soak.system import Asked, System
from tests.soak.world import RETENTION, World

PLANNED = "ink: new, by arrival; fault: none"


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


def test_a_round_is_the_same_without_those_before_it():
    assert [draw_round(3, number) for number in (7, 41)] == [draw_round(3, n) for n in range(1, 60) if n in (7, 41)]
    assert draw_round(3, 7) != draw_round(4, 7)


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
    system = System(World(tmp_path))
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
