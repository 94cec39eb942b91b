"""Readability check: the image must decode to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdlora.data.checks.base import Check, Picture

if TYPE_CHECKING:
    from sdlora.data.config import DataConfig


def readable(picture: Picture) -> float | None:
    """1 for a picture that decodes to its end, 0 otherwise; no score if decoding was not tried."""
    return None if picture.stack is None and picture.problem is None else float(picture.stack is not None)


def _rejects(score: float, _: DataConfig) -> str | None:
    return "cannot be read" if score < 1 else None


UNREADABLE = Check("unreadable", 1, readable, (), _rejects, ends_decoding=True, appends_problem=True)
