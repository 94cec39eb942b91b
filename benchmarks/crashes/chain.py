"""Chain of runs in a terminal that a fault is put on, stage by stage."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.crashes.faults import Fault, kill_everything
from benchmarks.crashes.marks import PATIENCE_SECONDS, Marks
from benchmarks.crashes.setting import Setting

NOT_REACHED, AWAY_ALREADY = "not reached", "goes on (away already)"


@dataclass
class Chain:
    """Outcome of a fault.

    Attributes:
        rows: outcome by stage.
        windows: beginnings and ends of the strikes in seconds of the monotonic clock.
        problem: what went wrong with the chain as a whole.
    """

    rows: dict[str, str] = field(default_factory=dict)
    windows: list[tuple[float, float]] = field(default_factory=list)
    problem: str | None = None

    @contextlib.contextmanager
    def striking(self) -> Iterator[None]:
        """Note the block as a strike."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.windows.append((began, time.monotonic()))

    def is_in_strike(self, at: float) -> bool:
        return any(begin <= at <= end for begin, end in self.windows)


class Entries:
    """Stages in the order in which they are entered, each once.

    Args:
        until: time of the monotonic clock after which no stage is returned; those that are left were not tried then.
    """

    def __init__(self, marks: Marks, stages: Sequence[str], until: float = math.inf) -> None:
        self.left = list(stages)
        self._marks, self._seen, self._until = marks, 0, until

    def next(self) -> tuple[str, float] | None:
        """Return the next stage that was entered, and when; None if there is none so far."""
        if time.monotonic() > self._until:
            self.left.clear()
        for event in self._marks.events()[self._seen :]:
            self._seen += 1
            if event["event"] == "begin" and event["stage"] in self.left:
                self.left.remove(event["stage"])
                return event["stage"], event["at"]
        return None

    def skip(self) -> None:
        """Forget what a run did that has ended: the next run enters the other stages again."""
        self._seen = len(self._marks.events())


def delay(usual_seconds: float, generator: random.Random) -> float:
    """Draw a moment within a stage, in seconds after its beginning."""
    return generator.random() * min(usual_seconds, 5.0)


def run_chain(
    fault: Fault, setting: Setting, usual: Mapping[str, float], generator: random.Random, stages: Sequence[str]
) -> Chain:
    """Strike at each of the stages, and return the outcomes; `usual` are the seconds of the stages without a fault."""
    chain, entries = Chain(), Entries(setting.marks, stages, setting.strike_until)
    process, deadline = setting.start(), time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        is_running = process.poll() is None
        entry = entries.next()
        if entry is None and not is_running:
            break
        if entry is None:
            time.sleep(0.01)
            continue
        stage, at = entry
        if chain.is_in_strike(at) or not is_running:
            chain.rows[stage] = AWAY_ALREADY if chain.is_in_strike(at) else NOT_REACHED
            continue
        time.sleep(delay(usual[stage], generator))
        with chain.striking():
            is_struck = fault.strike(setting, process)
        chain.rows[stage] = ("continues" if fault.ends_run else "goes on") if is_struck else AWAY_ALREADY
        if fault.ends_run and process.poll() is not None:
            fault.repair(setting)
            setting.marks.close()
            entries.skip()
            process, deadline = setting.start(), time.monotonic() + PATIENCE_SECONDS
    if process.poll() is None:
        chain.problem = f"did not end in {PATIENCE_SECONDS:.0f} s"
        kill_everything(setting, process)
    elif process.returncode != 0:
        chain.problem = f"ended with {process.returncode}"
    chain.rows |= dict.fromkeys(entries.left, NOT_REACHED)
    return chain
