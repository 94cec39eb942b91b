"""Animation check: the first frame of an animation may mean little."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdlora.data.checks.base import Check, Picture

if TYPE_CHECKING:
    from sdlora.data.config import DataConfig


def animated(picture: Picture) -> float | None:
    """1 for an animation, 0 for a still."""
    return float(picture.header.animated) if picture.header else None


def _rejects(score: float, config: DataConfig) -> str | None:
    return "animated; allow_animated would keep its first frame" if score and not config.allow_animated else None


ANIMATED = Check("animated", 1, animated, ("allow_animated",), _rejects)
