"""The rounds of a soak, one after the other, on one running `sdlora up`."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.soak import records
from tests.soak.asked import Asked, moment
from tests.soak.faults import strike
from tests.soak.invariants import Known, check, state_bytes, unpublished
from tests.soak.machine import Machine
from tests.soak.outcomes import Outcome, record
from tests.soak.plan import Fault, Round, draw_round
from tests.soak.system import System, load
from tests.soak.waiting import SoakError, wait_until
from tests.soak.world import ARRIVING_IMAGES, World

RUN_SECONDS = 900.0
"""Longest time from the request to the end of a run. A run waits at most this long for servers that are away."""
_TRIES = 3


@dataclass
class Soak:
    """Rounds of a seed.

    Attributes:
        echo: takes a line for each round.
        commit: recorded with each round.
        machine: disk, clock and PostgreSQL that faults strike; a plain one has none of them.
    """

    folder: Path
    seed: int
    echo: Callable[[str], None] = print
    commit: str = ""
    machine: Machine | None = None
    world: World = field(init=False)
    system: System = field(init=False)
    known: Known = field(default_factory=Known)
    outcomes: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        made = (self.folder / "world.json").exists()
        self.world = World.load(self.folder) if made else World(self.folder)
        if not made:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.world.make()
        machine = self.machine or Machine(self.folder, is_plain=True)
        if machine.postgres:
            records.use_postgres(self.world.home, machine.postgres.address)
        self.system = System(self.world, machine)
        for style in self.world.files:
            self.known.interrupted |= unpublished(self.world.home, style)

    def run(self, rounds: list[Round], stop_at_problem: bool = True, until: float | None = None) -> list[Outcome]:
        """Perform rounds; end early after one with a problem, or when the steady clock is past `until`."""
        try:
            self.system.start()
            for planned in rounds:
                if until is not None and time.monotonic() > until:
                    self.echo(f"no time is left for round {planned.number} and those after it")
                    break
                outcome = self._round(planned)
                if outcome.problems and stop_at_problem:
                    break
            self._end()
        finally:
            self._kill_all()
        return self.outcomes

    def _round(self, planned: Round) -> Outcome:
        began = time.monotonic()
        outcome = Outcome(planned.number, str(planned), load=load(), commit=self.commit)
        self.outcomes.append(outcome)
        try:
            self._act(planned, outcome)
            outcome.problems += check(self.system, self.known, after_gc=planned.gc)
        except (SoakError, AssertionError, OSError, sqlite3.Error, subprocess.SubprocessError) as error:
            outcome.problems.append(f"{type(error).__name__}: {error}")
        if errors := self.system.server_errors:
            outcome.happened.append(f"Prefect's server answered {len(errors)} times with an error, first {errors[0]}")
            self.system.server_errors = []
        outcome.seconds = time.monotonic() - began
        outcome.memory, outcome.sizes = self.system.memory(), state_bytes(self.system.home)
        outcome.lives = {role: processes[0].pid for role, processes in self.system.long_lived().items()}
        outcome.versions = sum(len(records.versions_of(self.system.home, style)) for style in self.world.files)
        outcome.starts, self.system.start_seconds = self.system.start_seconds, []
        record(self.folder, outcome)
        self._tell(planned, outcome)
        return outcome

    def _tell(self, planned: Round, outcome: Outcome) -> None:
        self.echo(
            f"round {planned.number} ({outcome.seconds:.0f} s, load {outcome.load:.1f}) {planned}: "
            f"{'; '.join(outcome.happened)}"
        )
        for problem in outcome.problems:
            self.echo(f"  FAILS: seed {self.seed}, round {planned.number}: {problem}")
        if outcome.problems:
            self.echo(f"  Again: make soak SOAK='--seed {self.seed} --from {planned.number} --rounds 1'")
            self.echo(f"  The state after it: {self.folder}")

    def _act(self, planned: Round, outcome: Outcome) -> None:
        draw = random.Random(planned.seed)
        starts = records.starts_of(self.system.home, planned.style)
        news = self._bring_news(planned, draw, outcome)
        self.world.save()  # a soak that is killed later in the round can go on
        if planned.way == "arrival":
            asked = [Asked(planned.style, arriving=news, starts_before=max((start.id for start in starts), default=0))]
            self._await_arrival(planned, asked[0], outcome)
        else:
            asked = [self.system.ask(planned.style, planned.way)]
        if planned.second:
            asked.append(self.system.ask(planned.second, "page"))
        if planned.fault and not _is_of_arrival(planned):
            self._strike(planned.fault, asked[0], outcome)
        for run in asked:
            self._finish(run, planned, outcome)
        if planned.decision:
            self._decide(planned, draw, outcome)
        if planned.gc:
            self._collect_garbage(outcome)

    def _strike(self, fault: Fault, asked: Asked, outcome: Outcome) -> None:
        outcome.happened.append(strike(self.system, fault, asked))
        if self.system.recover():
            outcome.happened.append("sdlora up had ended and was started again")

    def _await_arrival(self, planned: Round, asked: Asked, outcome: Outcome) -> None:
        """Let the new images start the run, whatever is killed meanwhile."""
        began = time.monotonic()
        if planned.fault and _is_of_arrival(planned):
            self._strike(planned.fault, asked, outcome)
        self.system.await_start(asked)
        if planned.fault is None:
            outcome.arrival_seconds = time.monotonic() - began
        outcome.happened.append("new images started the run")

    def _bring_news(self, planned: Round, draw: random.Random, outcome: Outcome) -> frozenset[str]:
        """Do what the round brings; return the digests of new images."""
        style, number, added = planned.style, planned.number, []
        if planned.news == "new":
            count = ARRIVING_IMAGES if planned.way == "arrival" else draw.randint(2, ARRIVING_IMAGES - 1)
            added = self.world.add_good(style, count, draw.randrange(2**31), number)
            outcome.happened.append(f"{len(added)} new images")
            if planned.way == "arrival":
                self.world.start_by_arrival(style)
        elif planned.news == "bad":
            added = self.world.add_bad(style, draw, number)
            if planned.has_to_train:
                added += self.world.add_good(style, 2, draw.randrange(2**31), number)
            outcome.happened.append("came: " + ", ".join(file.kind for file in added))
        elif planned.news == "rated":
            members = records.members_of(self.system.home, style)
            trained = sorted(sha for sha, member in members.items() if member.split == "train")
            if trained:
                image, stars = draw.choice(trained), draw.choice((1, 2, 4, 5))
                done = self.system.command("images", "rate", image, "--stars", str(stars), "--by", "ana")
                assert done.returncode == 0, done.stderr
                outcome.happened.append(f"rated {stars} of 5")
        return frozenset(file.sha256 for file in added)

    def _finish(self, asked: Asked, planned: Round, outcome: Outcome) -> None:
        """Wait for the run; one that a fault has ended is asked for again, as a person would do."""
        for tries_left in reversed(range(_TRIES)):
            self.system.wait(asked, RUN_SECONDS)
            if asked.completed:
                break
            text = f"{asked.style}: {asked.state}: {asked.message[-300:]}"
            outcome.happened.append(text)
            if planned.fault is None and "already" not in asked.message:
                outcome.problems.append(f"a run failed in a round without a fault: {text}")
            if not tries_left:
                raise SoakError(f"{_TRIES} runs of {asked.style} did not complete: {asked.state}: {asked.message}")
            if (
                "already" in asked.message
            ):  # new images have started a run meanwhile, which the message says to wait for
                self._await_training(asked.style)
            asked = self.system.ask(asked.style, "page")
        if planned.fault is None and asked.flow_run_id and planned.second is None:
            self._measure(asked, outcome)

    def _await_training(self, style: str) -> None:
        def has_ended() -> bool:
            tickets = records.tickets_of(self.system.home, style)
            return not any(ticket.state in ("waiting", "running") for ticket in tickets)

        wait_until(has_ended, RUN_SECONDS, f"the training of {style} to end")

    def _measure(self, asked: Asked, outcome: Outcome) -> None:
        """Measure the time of an undisturbed run that none of its tasks took."""
        tickets = records.tickets_of(self.system.home, asked.style)
        if not tickets or tickets[-1].state != "done" or tickets[-1].flow_run_id != asked.flow_run_id:
            return
        run = self.system.api(f"flow_runs/{asked.flow_run_id}")
        tasks = self.system.api("task_runs/filter", {"flow_runs": {"id": {"any_": [asked.flow_run_id]}}})
        outcome.run_seconds = moment(run["end_time"]) - moment(run["created"])
        outcome.overhead_seconds = outcome.run_seconds - sum(task["total_run_time"] for task in tasks)

    def _decide(self, planned: Round, draw: random.Random, outcome: Outcome) -> None:
        """Decide as a person: by command, by the deployment of the same name, or by hand in MLflow."""
        style, decision = planned.decided, planned.decision
        before = records.history_of(self.system.home, style)
        champions = [entry.to_version for entry in before if entry.from_version != entry.to_version]
        earlier = sorted({one for one in champions[:-1] if one is not None} - {champions[-1]} if champions else ())
        if decision in ("promote", "reject"):
            waiting = records.waiting_version(before)
            if waiting is None:
                return
            parameters: dict[str, Any] = {"name": style, "version": waiting, "who": "bo", "why": "soak"}
        elif not earlier:
            return
        elif decision == "move by hand":
            version = draw.choice(earlier)
            self.system.move_alias(style, version)
            # Seen by the next run or command of the style; here by a run with nothing new.
            self._finish(self.system.ask(style, "page"), planned, outcome)
            outcome.happened.append(f"{style}: alias moved to version {version} in MLflow")
            self.system.command("rollback", style, "--to", str(version))  # refused; it looks at MLflow first
            self._require_entry(style, before, "moved by hand", version)
            return
        else:
            parameters = {"name": style, "to": draw.choice(earlier), "who": "bo", "why": "soak"}
        verb = str(decision).replace(" ", "")
        if draw.random() < 0.3:
            deployment = self.system.api(f"deployments/name/{verb}/{verb}")
            asked = Asked(style, flow_run_id=self.system.create_run(deployment["id"], parameters))
            self.system.wait(asked, RUN_SECONDS)
            assert asked.completed, f"{decision} by the page: {asked.state}: {asked.message}"
        else:
            words = [word for key, value in parameters.items() if key != "name" for word in (f"--{key}", str(value))]
            done = self.system.command(verb, style, *words)
            assert done.returncode == 0, f"{decision} by command: {done.stderr[-800:]}"
        outcome.happened.append(f"{style}: {decision}")
        kinds = {"promote": ("promoted", "first champion"), "reject": ("rejected",), "roll back": ("rolled back",)}
        self._require_entry(style, before, *kinds[str(decision)])

    def _require_entry(self, style: str, before: list[records.Entry], *wanted: str | int) -> None:
        added = records.history_of(self.system.home, style)[len(before) :]
        found = [value for entry in added for value in (entry.kind, entry.to_version)]
        assert any(one in found for one in wanted), f"the history of {style} gained {added}, expected {wanted}"

    def _collect_garbage(self, outcome: Outcome) -> None:
        wait_until(lambda: not self.system.orphans(), 300, "runs to end before gc")
        done = self.system.command("gc", "--json")
        assert done.returncode == 0, f"gc: {done.stderr[-800:]}"
        outcome.happened.append(f"gc freed {json.loads(done.stdout)['byte_size'] / 1e6:.1f} MB")
        again = self.system.command("gc", "--dry-run", "--json")
        left = json.loads(again.stdout)["removals"]
        assert not left, f"a second gc would delete {left[:3]}"

    def _end(self) -> None:
        """Stop as a person does: nothing stays, no process and no lock."""
        outcome = self.outcomes[-1] if self.outcomes else Outcome(0, "")
        try:
            self.system.stop()
            wait_until(lambda: not self.system.processes(), 300, "all processes to end after sdlora up was stopped")
        except SoakError as error:
            outcome.problems.append(f"{error}: {self.system.orphans()}")
            self.echo(f"  FAILS: seed {self.seed}, at the end: {outcome.problems[-1]}")

    def _kill_all(self) -> None:
        for process in self.system.processes():
            process.kill()


def _is_of_arrival(planned: Round) -> bool:
    """Return True if the fault strikes before the new images have started the run."""
    return planned.fault is not None and planned.fault.at in ("collected", "ready")


def planned_rounds(
    seed: int, first: int, count: int, is_calm: bool = False, missing: Collection[str] = ()
) -> list[Round]:
    """Return the rounds of a seed, without the faults of missing victims; a calm soak has them without all faults."""
    rounds = [draw_round(seed, number) for number in range(first, first + count)]
    return [
        replace(planned, fault=None) if planned.fault and (is_calm or planned.fault.victim in missing) else planned
        for planned in rounds
    ]
