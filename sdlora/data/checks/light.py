"""Is it so light that nothing in it is dark?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdlora.data.checks.base import Check, Picture
from sdlora.data.checks.brightness import dark_ends

if TYPE_CHECKING:
    from sdlora.data.config import DataConfig


def dark_end(picture: Picture) -> float | None:
    """One minus the brightness that 95 % of the pixels reach: 0 for white, 1 for black.

    A line drawing whose ink covers less than 5 % of white paper has 0, as an overexposed photograph has. So the check
    is off by default; cleanvision's threshold for photographs is 0.05.

    Source: cleanvision 0.3.7, light_score.
    """
    dark = picture.of_pixels(dark_ends)
    return None if dark is None else 1.0 - dark


def _rejects(score: float, config: DataConfig) -> str | None:
    if score >= config.light_threshold:
        return None
    return f"light: 95 % of it is within {score:.2f} of white, less than light_threshold = {config.light_threshold:g}"


LIGHT = Check("light", 1, dark_end, ("light_threshold",), _rejects)
