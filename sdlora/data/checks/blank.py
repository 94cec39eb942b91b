"""Is there anything to see?"""

from __future__ import annotations

import math

import numpy as np

from sdlora.data.checks.base import Check, Picture
from sdlora.data.config import DataConfig


def contrast(picture: Picture) -> float | None:
    """Standard deviation of the most varied colour channel, in grey levels of 255."""
    if picture.rgb is None:
        return None
    shares = picture.histogram / picture.histogram.sum(axis=1, keepdims=True)
    values = np.arange(256)
    means = shares @ values
    variances = shares @ values**2 - means**2
    return math.sqrt(max(variances.max(), 0.0))


def _rejects(score: float, config: DataConfig) -> str | None:
    if score >= config.min_contrast:
        return None
    return f"blank: brightness varies by {score:.1f} of 255 levels, less than min_contrast = {config.min_contrast:g}"


BLANK = Check("blank", 1, contrast, ("min_contrast",), _rejects)
