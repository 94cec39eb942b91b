"""Is it so dark that nothing in it is bright?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdlora.data.checks.base import Check, Picture
from sdlora.data.checks.brightness import bright_ends

if TYPE_CHECKING:
    from sdlora.data.config import DataConfig


def bright_end(picture: Picture) -> float | None:
    """The brightness that 99 % of the pixels do not exceed, 0 (black) to 1 (white).

    Source: cleanvision 0.3.7, dark_score.
    """
    return picture.of_pixels(bright_ends)


def _rejects(score: float, config: DataConfig) -> str | None:
    if score >= config.dark_threshold:
        return None
    return (
        f"dark: 99 % of it is no brighter than {score:.2f} of 1, less than dark_threshold = {config.dark_threshold:g}"
    )


DARK = Check("dark", 1, bright_end, ("dark_threshold",), _rejects)
