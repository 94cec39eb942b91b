"""How the library tells its caller what it is doing. It never prints and never logs to a tracker itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

OnProgress = Callable[[str, int, int], None]
"""Called as (stage, done, total); `stage` is a few words such as "decode images", `total` 0 while it is not known."""

OnMetrics = Callable[[int, Mapping[str, float]], None]
"""Called as (step, values by metric name)."""


class Listener:
    """Base class of those that follow a training; each method does nothing until a subclass overrides it."""

    def on_progress(self, stage: str, done: int, total: int) -> None:
        """Take the progress of a stage: "encode images", "train", with `prior_weight` also "draw prior images"."""

    def on_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Take a point of the curves.

        Values are loss, gradient_norm, learning_rate, images_per_second, or validation_loss (with `validation_images`
        also validation_kid and its interval); where they apply also prior_loss, text_encoder_learning_rate and
        loss_scale. A continued run repeats its earlier points first.
        """

    def on_samples(self, step: int, path: Path) -> None:
        """Take a file of pictures drawn while training, see `sample_every_steps`, or the sheet of prior images."""


SILENT = Listener()
