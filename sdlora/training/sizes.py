"""Whether the sizes that were asked for can be trained, told before any work is done."""

from __future__ import annotations

from sdlora.artifacts import BaseModelRef
from sdlora.data import Snapshot
from sdlora.errors import TrainingError
from sdlora.models.families import family_of
from sdlora.training.config import TrainingConfig

LEAST_DRAWN = 8
"""Held-out images from which a distance between drawn and real ones is measured at all."""


def check_sizes(base: BaseModelRef, snapshot: Snapshot, config: TrainingConfig, num_processes: int) -> None:
    """Check the resolutions, the batch and that there is anything to train on.

    Raises:
        TrainingError: one of them does not fit the base, the snapshot or the number of processes.
    """
    multiple_px = family_of(base.folder).side_multiple_px
    unfit = [side_px for side_px in config.resolutions if side_px % multiple_px]
    if unfit:
        raise TrainingError(
            f"training.resolutions: {', '.join(map(str, unfit))} cannot be trained on {base.name}: its sides must be "
            f"multiples of {multiple_px} px. Set {', '.join(str(_nearest(side, multiple_px)) for side in unfit)}."
        )
    if not snapshot.train:
        raise TrainingError(
            f"The snapshot {snapshot.digest[:12]} has no training images. Collect images before training."
        )
    if config.validation_images is not None and len(snapshot.held_out) < LEAST_DRAWN:
        raise TrainingError(
            f"training.validation_images: {config.validation_images} held-out captions are to be drawn, but the "
            f"snapshot {snapshot.digest[:12]} holds out {len(snapshot.held_out)}, too few for a distance of images: "
            f"{LEAST_DRAWN} are needed. Collect more images, raise data.held_out_fraction, or leave it empty."
        )
    if config.batch_size % num_processes:
        raise TrainingError(
            f"training.batch_size: {config.batch_size} cannot be shared by {num_processes} processes. "
            "Set a multiple of the number of processes."
        )


def _nearest(side_px: int, multiple_px: int) -> int:
    return max(1, round(side_px / multiple_px)) * multiple_px
