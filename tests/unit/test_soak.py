"""The soak's plan depends on its seed only, and its invariants notice what is planted."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from sdlora.store.image_store import ImageStore
from sdlora.store.tables.versions import ChampionHistoryTable
from tests.soak.invariants import Known, _history, _images
from tests.soak.loop import Outcome
from tests.soak.plan import BLOCK, draw_round
from tests.soak.report import markdown, memory_problems
from tests.soak.system import System
from tests.soak.world import World


def test_a_round_depends_on_seed_and_number_only_and_every_block_has_all_faults() -> None:
    assert draw_round(7, 23) == draw_round(7, 23) != draw_round(8, 23)
    for seed, block in ((0, 0), (3, 2)):
        rounds = [draw_round(seed, block * BLOCK + number) for number in range(1, BLOCK + 1)]
        struck = Counter((one.fault.kind, one.fault.victim) for one in rounds if one.fault)
        assert struck[("kill", "run")] == struck[("cancel", "run")] == struck[("kill", "prefect")] == 2
        assert {victim for kind, victim in struck if kind == "kill"} == {
            "run",
            "worker",
            "watcher",
            "prefect",
            "mlflow",
            "up",
        }
        assert {one.news for one in rounds} == {"new", "none", "bad", "rated"}


@pytest.fixture
def system(tmp_path: Path) -> System:
    """A system without servers, whose world has one good and one broken file of the style ink."""
    world = World(tmp_path)
    world.add_good("ink", 2, seed=1, round_number=0)
    folder = tmp_path / "images" / "ink"
    (folder / "broken.png").write_bytes(b"no image")
    world._record("ink", [folder / "broken.png"], "broken", 0)
    return System(world)


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
    outcomes = [
        Outcome(number, "ink: new, by page; fault: none", memory={"up": 100.0 + number}) for number in range(20)
    ]
    assert memory_problems(outcomes) == []
    outcomes[-1].problems.append("an image is lost")
    for outcome in outcomes[10:]:
        outcome.memory["up"] = 200.0
    assert memory_problems(outcomes) == ["memory of up: 200 MB in the last 10 rounds, 104 MB in the first"]
    page = markdown(4, outcomes, [9.5], "abc")
    assert "seed 4" in page and "- round 19 (ink: new, by page; fault: none): an image is lost" in page
    assert "- memory of up: 200 MB" in page
