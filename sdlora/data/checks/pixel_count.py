"""Does the header promise more pixels than we are willing to unpack (a decompression bomb)?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdlora.data.checks.base import Check, Picture

if TYPE_CHECKING:
    from sdlora.data.config import DataConfig


def pixel_count(picture: Picture) -> float:
    """Width times height by the header; 0 where there is none."""
    return float(picture.header.pixels) if picture.header else 0.0


def _rejects(score: float, config: DataConfig) -> str | None:
    if score <= config.max_pixels:
        return None
    return f"the header promises {score:,.0f} pixels, more than max_pixels = {config.max_pixels:,}; it was not decoded"


PIXEL_COUNT = Check("pixel_count", 1, pixel_count, ("max_pixels",), _rejects, ends=True)
