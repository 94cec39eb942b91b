"""Settings of a new style that follow from the number of its images, for its file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sdlora.evaluation.gate import MIN_HELD_OUT_IMAGES

FEWEST_IMAGES = 10
"""Fewest images of a style: six to train on and four that judge."""
FEW_IMAGES = 60
"""Number of images up to which a style has settings of its own."""
STEPS, LEARNING_RATE = 150, 1e-3  # measured, see docs/experiments.md
_FEWEST_THAT_DECIDE = 16  # six that judge, eight to train on (data.min_train_images), and two to be rejected


@dataclass(frozen=True)
class Fitted:
    """Setting with a value that fits the number of images, and the reason in words."""

    setting: str
    value: int | float | str
    why: str


def fitted_settings(images: int | None, is_small_base: bool) -> tuple[Fitted, ...]:
    """Return the settings for a style of few images; none for very few, for many and for an unknown number.

    Args:
        images: files that look like images; None if a source is not counted yet.
        is_small_base: the base model takes the defaults of small bases. Nothing was measured on large ones, so the
            steps of their family stay.
    """
    if images is None or not FEWEST_IMAGES <= images <= FEW_IMAGES:
        return ()
    return tuple(_fitted(images, is_small_base))


def _fitted(images: int, is_small_base: bool) -> Iterator[Fitted]:
    if images < _FEWEST_THAT_DECIDE:
        yield Fitted("data.min_train_images", FEWEST_IMAGES - 4, "at least so many are learnt; four others judge")
    else:
        yield Fitted("data.min_held_out_images", MIN_HELD_OUT_IMAGES, "at least so many judge and are not learnt")
    if is_small_base:
        yield Fitted("training.steps", STEPS, f"more steps would learn {images} images by heart")
        yield Fitted("training.learning_rate", LEARNING_RATE, "half of the default, which is too fast for so few")
        # The validation loss prefers steps whose drawings do not have the style yet.
        yield Fitted("training.keep", "last", "the loss on few held-out images would keep a step that is too early")
    yield Fitted("gate.mode", "ask", "you decide where so few images cannot tell")
