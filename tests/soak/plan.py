"""Plan of a soak. A round depends on the seed and its number only, so it can be repeated without those before it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

STYLES = ("ink", "clay", "neon")

News = Literal["new", "none", "bad", "rated"]
Moment = Literal["start", "collected", "ready", "collect", "train", "duel", "publish"]
Victim = Literal["run", "worker", "watcher", "prefect", "mlflow", "up", "machine", "disk", "clock", "postgres"]
Way = Literal["page", "terminal", "arrival"]
"""How a run is asked for; "arrival" is by new images alone, which the watcher sees."""
Kind = Literal["kill", "stop", "cancel", "lose", "reboot", "fill", "set"]
Decision = Literal["promote", "reject", "roll back", "move by hand"]

MOMENTS: tuple[Moment, ...] = ("collect", "train", "duel", "publish")
_OF_TRAINING: tuple[Moment, ...] = MOMENTS[1:]
BLOCK = 20
"""Rounds in which every fault comes as often as in `_FAULTS`."""


@dataclass(frozen=True)
class Fault:
    """Fault in a round.

    Attributes:
        kind: "kill" is SIGKILL, "stop" is SIGSTOP and later SIGCONT, "cancel" is a person's cancellation. "lose" stops
            the watcher and kills the Prefect server, so that only the flow `reconcile` can start the run. "reboot" is
            SIGKILL of every process of the state folder at once. "fill" leaves no space on its disk. "set" sets the
            clock of every process an hour forth, then an hour back, then right again.
        at: moment of the run that is waited for. "start" is the moment after the run was created. "collected" and
            "ready" are moments of an arrival: the watcher has collected the images, and has decided to start a run.
        delay_seconds: time from this moment to the fault.
        lasting_seconds: time until what is stopped, full, set or killed with PostgreSQL is as before.
    """

    kind: Kind
    victim: Victim
    at: Moment
    delay_seconds: float
    lasting_seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind} {self.victim} at {self.at} + {self.delay_seconds:.1f} s"


@dataclass(frozen=True)
class Round:
    """What one round does.

    Attributes:
        style: style that gets the news and whose run the fault is aimed at.
        second: style that is asked for at the same time; None without one.
        decided: style that a person decides about at the end of the round.
        gc: the state folder is cleaned up at the end of the round.
        seed: source of everything else that is drawn in the round.
    """

    number: int
    style: str
    second: str | None
    news: News
    way: Way
    fault: Fault | None
    decision: Decision | None
    decided: str
    gc: bool
    seed: int

    @property
    def has_to_train(self) -> bool:
        """True if the fault waits for a moment that only a run with new images reaches."""
        return self.fault is not None and self.fault.at in _OF_TRAINING

    def __str__(self) -> str:
        second = f", and {self.second}" if self.second else ""
        return f"{self.style}: {self.news}, by {self.way}{second}; fault: {self.fault or 'none'}"


_NEWS: tuple[News, ...] = ("new",) * 9 + ("bad",) * 4 + ("rated",) * 3 + ("none",) * 4
_FAULTS: tuple[tuple[Kind, Victim, Moment | None] | None, ...] = (
    *[None] * 3,
    ("kill", "run", None),
    ("kill", "worker", None),
    ("kill", "watcher", None),
    ("kill", "prefect", "ready"),  # the event of the arrival is lost with the server
    ("lose", "watcher", "collected"),
    ("kill", "prefect", None),
    ("kill", "mlflow", None),
    ("kill", "up", None),
    ("stop", "run", None),
    ("stop", "prefect", None),
    ("stop", "mlflow", None),
    ("cancel", "run", None),
    ("cancel", "run", "start"),
    ("reboot", "machine", None),
    ("fill", "disk", None),
    ("set", "clock", None),
    ("kill", "postgres", None),
)
_LASTING: tuple[Kind, ...] = ("stop", "fill", "set")
_DECISIONS: tuple[Decision | None, ...] = ("promote", "promote", "promote", "reject", "roll back", "move by hand", None)


def draw_round(seed: int, number: int) -> Round:
    """Draw the round of a number, from 1."""
    block, place = divmod(number - 1, BLOCK)
    deck = random.Random(f"{seed}/block {block}")
    news, faults = deck.sample(_NEWS, BLOCK), deck.sample(_FAULTS, BLOCK)
    draw = random.Random(f"{seed}/round {number}")
    style = STYLES[(number - 1) % len(STYLES)]
    others = [name for name in STYLES if name != style]
    fault = _draw_fault(draw, faults[place])
    is_of_arrival = fault is not None and fault.at in ("collected", "ready")
    brings = news[place]
    if is_of_arrival or (brings == "none" and fault and fault.at in _OF_TRAINING):
        brings = "new"
    return Round(
        number=number,
        style=style,
        second=draw.choice(others) if draw.random() < 0.25 else None,
        news=brings,
        way="arrival" if is_of_arrival else draw.choice(_ways(brings, fault)),
        fault=fault,
        decision=draw.choice(_DECISIONS),
        decided=draw.choice(STYLES),
        gc=number % 5 == 0,
        seed=draw.getrandbits(32),
    )


def _ways(news: News, fault: Fault | None) -> tuple[Way, ...]:
    by_arrival: tuple[Way, ...] = ("arrival", "arrival") if news == "new" else ()
    # A kill of the worker concerns no run of a terminal. A run that is cancelled at its start is asked for.
    if fault and fault.victim in ("worker", "up"):
        return ("page", *by_arrival)
    return ("page", "page", "terminal") if fault and fault.at == "start" else ("page", "page", "terminal", *by_arrival)


def _draw_fault(draw: random.Random, drawn: tuple[Kind, Victim, Moment | None] | None) -> Fault | None:
    if drawn is None:
        return None
    kind, victim, at = drawn
    return Fault(
        kind,
        victim,
        at or draw.choice(MOMENTS),
        delay_seconds=round(draw.uniform(0, 1.5), 2),
        lasting_seconds=round(draw.uniform(5, 15), 1) if kind in _LASTING or victim == "postgres" else 0.0,
    )
