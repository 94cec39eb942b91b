"""Problems of a source that cost no image: broken lines of metadata, captions over the limit, unreadable sidecars."""

from __future__ import annotations

from dataclasses import dataclass, field

PROBLEMS_KEPT = 10
"""Problems that are kept with place and reason. All others are only counted."""


@dataclass
class Problems:
    """The first problems of a source as (place, reason), and the number of all."""

    count: int = 0
    first: list[tuple[str, str]] = field(default_factory=list)

    def add(self, place: str, reason: str, count: int = 1) -> None:
        """Count problems of one place and reason."""
        self.count += count
        if len(self.first) < PROBLEMS_KEPT:
            self.first.append((place, reason))
