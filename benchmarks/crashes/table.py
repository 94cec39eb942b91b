"""Rows of the table: a chain for each fault, and the undisturbed run that it is compared with."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.crashes.chain import NOT_REACHED, Chain, run_chain
from benchmarks.crashes.faults import faults, missing
from benchmarks.crashes.marks import STAGES
from benchmarks.crashes.page import Cell
from benchmarks.crashes.servers import setting_for
from benchmarks.crashes.setting import PROJECT, verdict
from benchmarks.crashes.stack import FAULTS as STACK_FAULTS
from benchmarks.crashes.stack import run_stack


def titles() -> dict[str, str]:
    """Return the titles of all faults by name."""
    return {name: fault.name for name, fault in faults().items()} | STACK_FAULTS


@dataclass(frozen=True)
class Measurement:
    """How the table is measured.

    Attributes:
        folder: for state folders, images and the base.
        stages: those that are struck.
        away_seconds: length of an absence.
        postgres: address of a PostgreSQL server; None if there is none.
        seed: for the moments of the faults.
        strike_minutes: time for the strikes of a chain; the stages that are left then stay blank.
        undisturbed: file in which the undisturbed run is kept for other calls on the same code.
    """

    folder: Path
    stages: Sequence[str]
    away_seconds: float
    postgres: str | None
    seed: int
    strike_minutes: float
    undisturbed: Path | None = None

    def rows(self, names: Sequence[str], on_cells: Callable[[list[Cell]], None]) -> None:
        """Measure one row after the other; `on_cells` gets the cells of each."""
        from tests.tiny import draw_images, tiny_base_model  # not for a page from the record alone

        images, base = draw_images(self.folder / "images", 24, seed=0), tiny_base_model(self.folder / "tiny")
        usual, expected = self._undisturbed(images, base)
        for name in names:
            fault = faults(self.away_seconds).get(name)  # none for a fault of `sdlora up`
            needs = fault.needs if fault else ()
            if fault and (reason := missing(fault, self.postgres)):
                print(f"{fault.name}: not run, {reason}", flush=True)
                continue
            generator = random.Random(self.seed)  # noqa: S311  # moments of faults
            with setting_for(needs, self.folder / name, images, base, self.postgres) as setting:
                setting.strike_until = time.monotonic() + 60 * self.strike_minutes
                if fault:
                    chain = run_chain(fault, setting, usual, generator, self.stages)
                else:
                    chain = run_stack(name, setting, usual, generator, self.stages)
                if chain.problem is None and (found := verdict(setting)) != expected:
                    chain.problem = f"other result {found}, expected {expected}"
                seconds, paused = setting.marks.stage_seconds(), setting.marks.seconds_within(chain.windows)
                if chain.problem:
                    print(setting.output[-5000:] if fault else "", flush=True)
            lost = {stage: seconds[stage] - usual[stage] - paused[stage] for stage in STAGES}
            on_cells(cells_of(name, chain, lost))
            print(f"{titles()[name]}: {chain.problem or 'as it should be'}, {lost}", flush=True)

    def _undisturbed(self, images: Path, base: Path) -> tuple[dict[str, float], tuple[str, int, int]]:
        """Return the seconds of the stages of a run without a fault or servers, and its verdict."""
        if self.undisturbed and self.undisturbed.exists():
            seconds, result = json.loads(self.undisturbed.read_text())
            return seconds, tuple(result)
        with setting_for((), self.folder / "undisturbed", images, base, None) as setting:
            setting.run_undisturbed()
            found = setting.marks.stage_seconds(), verdict(setting)
        if self.undisturbed:
            self.undisturbed.write_text(json.dumps(found))
        return found


def cells_of(name: str, chain: Chain, lost_seconds: Mapping[str, float]) -> list[Cell]:
    """Return the cells of a chain. A problem counts for all stages that were struck: one of them caused it."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=PROJECT, capture_output=True, text=True, check=False
    ).stdout.strip()
    today, load = f"{datetime.now(UTC):%Y-%m-%d}", os.getloadavg()[0]
    return [
        Cell(
            name,
            stage,
            f"{outcome}: {chain.problem}" if chain.problem and outcome != NOT_REACHED else outcome,
            None if chain.problem or outcome == NOT_REACHED else lost_seconds[stage],
            load,
            today,
            commit,
        )
        for stage, outcome in chain.rows.items()
    ]
