"""Is it a strip, most of which a square cut would lose?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdlora.data.checks.base import Check, Picture

if TYPE_CHECKING:
    from sdlora.data.config import DataConfig


def aspect_ratio(picture: Picture) -> float | None:
    """The shorter side over the longer one, in (0, 1].

    Source: cleanvision 0.3.7, odd_aspect_ratio_score.
    """
    if picture.header is None or not picture.header.width or not picture.header.height:
        return None
    return min(picture.header.width, picture.header.height) / max(picture.header.width, picture.header.height)


def _rejects(score: float, config: DataConfig) -> str | None:
    if score >= config.min_aspect_ratio:
        return None
    return (
        f"a strip: the shorter side is {score:.2f} of the longer one, less than "
        f"min_aspect_ratio = {config.min_aspect_ratio:g}"
    )


ASPECT_RATIO = Check("aspect_ratio", 1, aspect_ratio, ("min_aspect_ratio",), _rejects)
