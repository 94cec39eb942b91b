"""Report of a soak: figures, actions, failures, as the page `docs/soak.md`."""

from __future__ import annotations

import os
import platform
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType

from tests.soak.outcomes import Outcome, growth, longest_lives

MEMORY_GROWTH = 1.10
_MEGABYTE = 1e6
INTRODUCTION = """\
Rounds over three styles with a tiny base on a running `sdlora up`: new images, broken ones, ratings, decisions, kills,
stops, cancellations, reboots, a full disk, a clock that is set. Runs are started on the page, from a terminal, or by
new images alone. After each round, invariants are checked from outside: by SQL, over HTTP, from files and from the
process table.
[`tests/soak/`](../tests/soak/__init__.py) has the rounds and the invariants. `make soak` writes this page.
"""


def memory_problems(outcomes: Sequence[Outcome], rounds: int = 10) -> list[str]:
    """List long-lived parts whose memory grew too much; nothing with too few rounds to tell."""
    if len(outcomes) < 2 * rounds:
        return []
    found = growth(list(outcomes), rounds)
    return [
        f"memory of {role}: {last:.0f} MB in the last {rounds} rounds, {first:.0f} MB in the first"
        for role, (first, last) in found.items()
        if last > first * MEMORY_GROWTH
    ]


def markdown(
    seed: int, recorded: Sequence[Outcome], notes: str = "", missing: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Write the page. A round that failed and ran again is told among the failures; figures take its last run."""
    outcomes = [outcome for _, outcome in sorted({outcome.number: outcome for outcome in recorded}.items())]
    commits = list(dict.fromkeys(outcome.commit for outcome in recorded))
    starts = [seconds for outcome in outcomes for seconds in outcome.starts]
    arrivals = [outcome.arrival_seconds for outcome in outcomes if outcome.arrival_seconds is not None]
    seconds = [outcome.seconds for outcome in outcomes]
    overheads = [outcome.overhead_seconds for outcome in outcomes if outcome.overhead_seconds is not None]
    runs = [outcome.run_seconds for outcome in outcomes if outcome.run_seconds is not None]
    loads = [outcome.load for outcome in outcomes]
    failures = [
        f"round {outcome.number} ({outcome.planned}), commit {outcome.commit}: {problem}"
        for outcome in recorded
        for problem in outcome.problems
    ] + memory_problems(outcomes)
    figures = {
        "rounds": f"{len(outcomes)}, seed {seed}",
        "whole time": f"{sum(seconds) / 60:.0f} minutes",
        "a round": f"mean {statistics.mean(seconds):.1f} s, {_spread(seconds)}" if seconds else "not measured",
        "an undisturbed run that trains, from request to end": _spread(runs),
        "of it outside of the tasks (orchestration, start of the process)": _spread(overheads),
        "from new images to the run that they start, undisturbed": _spread(arrivals),
        "`sdlora up` until all answer": f"{_spread(starts)}, {len(starts)} starts",
        "load of the machine (1 minute)": _spread(loads, ""),
        "versions": str(outcomes[-1].versions) if outcomes else "0",
        "invariants that failed": str(len(failures)),
    }
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    parts = [
        "# Soak",
        INTRODUCTION.strip(),
        f"{datetime.now(UTC):%Y-%m-%d}, commit {', '.join(commits)}, {machine}.",
        *([notes] if notes else []),
        *([f"Faults that were not possible: {_reasons(missing)}."] if missing else []),
        _table(("figure", "value"), figures.items()),
        "## What happened",
        _table(("event", "rounds"), _events(outcomes).items()),
        "## Memory of the long-lived processes",
        _table(
            ("part", "first 10 rounds, MB", "last 10 rounds, MB", "change"),
            [
                (role, f"{first:.0f}", f"{last:.0f}", f"{100 * (last / first - 1):+.0f} %" if first else "")
                for role, (first, last) in growth(list(outcomes)).items()
            ],
        ),
        "Proportional set size (PSS), median over the rounds. Parts were killed and started again in between.",
        "The process of each part that lived longest:",
        _table(
            ("part", "rounds", "first, MB", "last, MB", "change"),
            [
                (
                    role,
                    f"{life.first_round} to {life.last_round}",
                    f"{life.first:.0f}",
                    f"{life.last:.0f}",
                    f"{100 * (life.last / life.first - 1):+.0f} %" if life.first else "",
                )
                for role, life in longest_lives(outcomes).items()
            ],
        ),
        "## State folder",
        _sizes(outcomes),
        "## Failures",
        "\n".join(f"- {failure}" for failure in failures) or "None.",
    ]
    return "\n\n".join(parts) + "\n"


def _reasons(missing: Mapping[str, str]) -> str:
    return ", ".join(f"{victim} ({reason})" for victim, reason in missing.items())


def _events(outcomes: Sequence[Outcome]) -> Mapping[str, int]:
    counted: Counter[str] = Counter()
    for outcome in outcomes:
        news, _, fault = outcome.planned.partition("; fault: ")
        counted[f"run: by {news.partition(', by ')[2].split(',')[0]}"] += 1
        counted[f"news: {news.split(': ')[1].split(',')[0]}"] += 1
        counted[f"fault: {fault.split(' + ')[0]}"] += 1
        for text in outcome.happened:
            counted["fault: came after the end of its run"] += ", after its end" in text
            for word in (
                "promote",
                "reject",
                "roll back",
                "alias moved",
                "sdlora up had ended",
                "gc freed",
                "reconcile started",
            ):
                counted[word] += word in text
    return dict(sorted((event, count) for event, count in counted.items() if count))


def _sizes(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return ""
    chosen = sorted({0, len(outcomes) // 2, len(outcomes) - 1})
    parts = sorted({part for index in chosen for part in outcomes[index].sizes})
    parts = [part for part in parts if max(outcomes[index].sizes.get(part, 0) for index in chosen) > _MEGABYTE / 10]
    rows = [(part, *(f"{outcomes[index].sizes.get(part, 0) / _MEGABYTE:.1f}" for index in chosen)) for part in parts]
    rows.append(("all", *(f"{sum(outcomes[index].sizes.values()) / _MEGABYTE:.1f}" for index in chosen)))
    return _table(("MB after round", *(str(outcomes[index].number) for index in chosen)), rows)


def _spread(values: Sequence[float], unit: str = " s") -> str:
    if not values:
        return "not measured"
    return f"median {statistics.median(values):.1f}{unit}, longest {max(values):.1f}{unit}"


def _table(header: Sequence[str], lines: object) -> str:
    rows = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    rows += ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]  # type: ignore[attr-defined]
    return "\n".join(rows)
