"""Is there anything to see?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdlora.data.checks.base import Check, Picture
from sdlora.data.checks.levels import FloatArray, deviations, histograms
from sdlora.data.decoding.stack import Stack

if TYPE_CHECKING:
    from sdlora.data.config import DataConfig


def contrast(picture: Picture) -> float | None:
    """Standard deviation of the most varied colour channel, in grey levels of 255."""
    return picture.of_pixels(_contrasts)


def _contrasts(stack: Stack) -> FloatArray:
    contrasts: FloatArray = deviations(stack.computed(histograms)).max(axis=1)
    return contrasts


def _rejects(score: float, config: DataConfig) -> str | None:
    if score >= config.min_contrast:
        return None
    return f"blank: brightness varies by {score:.1f} of 255 levels, less than min_contrast = {config.min_contrast:g}"


BLANK = Check("blank", 1, contrast, ("min_contrast",), _rejects)
