"""Does it show more than one plain colour?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sdlora.data.checks.base import Check, Picture
from sdlora.data.checks.levels import FloatArray, entropies, histograms
from sdlora.data.decoding.stack import Stack

if TYPE_CHECKING:
    from sdlora.data.config import DataConfig


def information(picture: Picture) -> float | None:
    """A tenth of the entropy of all colour values together, in bits, at most 1.

    One plain colour has 0.158 (a third of the values each in three bins), a hairline on white paper 0.162, the demo's
    icons have 0.26 to 0.48, photographs mostly 0.7 to 0.95.

    Source: cleanvision 0.3.7, low_information_score, of the image as RGB.
    """
    return picture.of_pixels(_information)


def _information(stack: Stack) -> FloatArray:
    counts = stack.computed(histograms)
    result: FloatArray = np.minimum(entropies(counts.reshape(len(counts), -1)) / 10, 1.0)
    return result


def _rejects(score: float, config: DataConfig) -> str | None:
    if score >= config.low_information_threshold:
        return None
    return (
        f"low information: entropy {score:.3f} of 1, less than "
        f"low_information_threshold = {config.low_information_threshold:g}"
    )


LOW_INFORMATION = Check("low_information", 2, information, ("low_information_threshold",), _rejects)
