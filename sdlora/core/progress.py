"""Callbacks by which the library reports progress. The library never prints or logs to a tracker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

OnProgress = Callable[[str, int, int], None]
"""Called as (stage, done, total); `stage` is a few words such as "decode images", `total` 0 while it is not known."""

OnMetrics = Callable[[int, Mapping[str, float]], None]
"""Called as (step, values by metric name)."""


class Listener:
    """Base class of listeners to a training run; each method does nothing unless a subclass overrides it."""

    def on_progress(self, stage: str, done: int, total: int) -> None:
        """Receive the progress of a stage: "encode images", "train", with `prior_weight` also "draw prior images"."""

    def on_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Receive one point of the curves.

        Training points hold loss, gradient_norm, learning_rate and images_per_second. Where they apply, prior_loss,
        text_encoder_learning_rate and loss_scale are added. Validation points hold validation_loss, with
        `validation_images` also validation_kid and its interval. A continued run first repeats its earlier points.
        """

    def on_samples(self, step: int, path: Path) -> None:
        """Receive a file of images drawn during training (see `sample_every_steps`), or the sheet of prior images."""

    def on_note(self, text: str) -> None:
        """Receive a line about the run, such as its place in the queue."""


SILENT = Listener()
