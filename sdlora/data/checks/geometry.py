"""Size and shape checks by the header: decompression bombs, small images, strips."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdlora.data.checks.base import Check, Picture

if TYPE_CHECKING:
    from sdlora.data.config import DataConfig


def pixel_count(picture: Picture) -> float:
    """Width times height by the header, 0 without a header."""
    return float(picture.header.pixels) if picture.header else 0.0


def _rejects_pixel_count(score: float, config: DataConfig) -> str | None:
    if score <= config.max_pixels:
        return None
    return f"the header promises {score:,.0f} pixels, more than max_pixels = {config.max_pixels:,}; it was not decoded"


PIXEL_COUNT = Check("pixel_count", 1, pixel_count, ("max_pixels",), _rejects_pixel_count, ends_decoding=True)


def shorter_side(picture: Picture) -> float | None:
    """Shorter side in pixels."""
    return float(min(picture.header.width, picture.header.height)) if picture.header else None


def _rejects_too_small(score: float, config: DataConfig) -> str | None:
    if score >= config.min_side_px:
        return None
    return f"the shorter side has {score:.0f} px, fewer than min_side_px = {config.min_side_px}"


TOO_SMALL = Check("too_small", 1, shorter_side, ("min_side_px",), _rejects_too_small)


def aspect_ratio(picture: Picture) -> float | None:
    """Shorter side over longer side, in (0, 1].

    Source: cleanvision 0.3.7, odd_aspect_ratio_score.
    """
    if picture.header is None or not picture.header.width or not picture.header.height:
        return None
    return min(picture.header.width, picture.header.height) / max(picture.header.width, picture.header.height)


def _rejects_aspect_ratio(score: float, config: DataConfig) -> str | None:
    if score >= config.min_aspect_ratio:
        return None
    return (
        f"a strip: the shorter side is {score:.2f} of the longer one, less than "
        f"min_aspect_ratio = {config.min_aspect_ratio:g}"
    )


ASPECT_RATIO = Check("aspect_ratio", 1, aspect_ratio, ("min_aspect_ratio",), _rejects_aspect_ratio)
