"""Outcomes of rounds, kept in a file of the soak's folder, and the memory of long-lived processes over them."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path

_FILE = "outcomes.jsonl"


@dataclass
class Outcome:
    """What a round did and measured.

    Attributes:
        happened: events of the round in words, such as `kill up at duel + 0.4 s`.
        problems: invariants that do not hold.
        overhead_seconds: of the undisturbed run that trained, its time from the request to the end without its tasks.
        arrival_seconds: of an undisturbed run that new images started, time from the images to its creation.
        memory: MB of each long-lived part of `sdlora up` after the round.
        lives: process id of each of these parts; another one means that it was started again.
        sizes: bytes of each part of the state folder after the round.
        starts: seconds of each start of `sdlora up` since the round before.
        commit: code that the round ran on; a soak may be continued on another one.
    """

    number: int
    planned: str
    seconds: float = 0.0
    load: float = 0.0
    happened: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    overhead_seconds: float | None = None
    run_seconds: float | None = None
    arrival_seconds: float | None = None
    memory: dict[str, float] = field(default_factory=dict)
    lives: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    versions: int = 0
    starts: list[float] = field(default_factory=list)
    commit: str = ""


def record(folder: Path, outcome: Outcome) -> None:
    with (folder / _FILE).open("a") as file:
        file.write(json.dumps(asdict(outcome)) + "\n")


def recorded_outcomes(folder: Path) -> list[Outcome]:
    """Return the outcomes of all rounds on a folder, also of those before a continuation."""
    file = folder / _FILE
    return [Outcome(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def growth(outcomes: list[Outcome], rounds: int = 10) -> dict[str, tuple[float, float]]:
    """Return the median memory in MB of each long-lived part in the first and in the last rounds."""
    roles = sorted({role for outcome in outcomes for role in outcome.memory})
    first, last = outcomes[:rounds], outcomes[-rounds:]
    return {role: (_median(first, role), _median(last, role)) for role in roles}


@dataclass(frozen=True)
class Life:
    """Memory of one process of a part over the rounds that it lived through, in MB."""

    first_round: int
    last_round: int
    first: float
    last: float


def longest_lives(outcomes: list[Outcome]) -> dict[str, Life]:
    """Return for each part the process that lived through most rounds. It was not killed in between."""
    found: dict[str, Life] = {}
    for role in sorted({role for outcome in outcomes for role in outcome.lives}):
        lives: dict[int, list[Outcome]] = {}
        for outcome in outcomes:
            if role in outcome.lives and role in outcome.memory:
                lives.setdefault(outcome.lives[role], []).append(outcome)
        longest = max(lives.values(), key=len)
        first, last = longest[0], longest[-1]
        found[role] = Life(first.number, last.number, first.memory[role], last.memory[role])
    return found


def _median(outcomes: list[Outcome], role: str) -> float:
    return statistics.median([outcome.memory[role] for outcome in outcomes if role in outcome.memory] or [0.0])
