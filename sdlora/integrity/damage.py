"""Damage that a check of digests found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Problem = Literal["missing", "damaged"]


@dataclass(frozen=True)
class Damage:
    """Missing or damaged thing.

    Attributes:
        kind: "image", "mask", "drawn image", "snapshot", "adapter", "duel", "picture", "checkpoint", "base model",
            "database" or "cache".
        what: the thing in words.
        where: path or address of its bytes.
        remedy: what was done, or what to do, as a sentence.
        repaired: True if the thing is whole again, or if it was a cache entry and is gone.
    """

    kind: str
    what: str
    where: str
    problem: Problem
    remedy: str
    repaired: bool = False
