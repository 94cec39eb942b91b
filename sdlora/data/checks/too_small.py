"""Is it large enough to learn from?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdlora.data.checks.base import Check, Picture

if TYPE_CHECKING:
    from sdlora.data.config import DataConfig


def shorter_side(picture: Picture) -> float | None:
    """The shorter side in pixels."""
    return float(min(picture.header.width, picture.header.height)) if picture.header else None


def _rejects(score: float, config: DataConfig) -> str | None:
    if score >= config.min_side_px:
        return None
    return f"the shorter side has {score:.0f} px, fewer than min_side_px = {config.min_side_px}"


TOO_SMALL = Check("too_small", 1, shorter_side, ("min_side_px",), _rejects)
