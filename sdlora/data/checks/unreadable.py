"""Is it a whole picture?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdlora.data.checks.base import Check, Picture

if TYPE_CHECKING:
    from sdlora.data.config import DataConfig


def readable(picture: Picture) -> float | None:
    """1 for a picture that was decoded to the end, 0 for one that could not be; None where nobody tried."""
    return None if picture.stack is None and picture.problem is None else float(picture.stack is not None)


def _rejects(score: float, _: DataConfig) -> str | None:
    return "cannot be read" if score < 1 else None


UNREADABLE = Check("unreadable", 1, readable, (), _rejects, ends_decoding=True, appends_problem=True)
