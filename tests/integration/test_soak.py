"""Short form of `make soak`: three rounds on a running `sdlora up`."""

from __future__ import annotations

from pathlib import Path

from tests.soak import records
from tests.soak.loop import Soak
from tests.soak.outcomes import recorded_outcomes
from tests.soak.plan import Fault, Round
from tests.soak.report import markdown

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
