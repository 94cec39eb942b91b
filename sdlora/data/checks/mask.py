"""Does the picture beside it that says which parts count fit?"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from sdlora.data.checks.base import Findings, RecordCheck
from sdlora.data.config import DataConfig
from sdlora.store.masks import Mask, masks_of


def mask_fits(session: Session, image_ids: Sequence[int], config: DataConfig) -> Findings:
    """1 if the mask beside the image can be used, else 0; images without a mask are no concern of this check."""
    if config.allow_unfit_masks:
        return {}
    return {image_id: _judge(mask) for image_id, mask in masks_of(session, image_ids).items()}


def _judge(mask: Mask) -> tuple[float, str | None]:
    if mask.problem is None:
        return 1.0, None
    return 0.0, f"its mask {mask.path} cannot be used: {mask.problem}; allow_unfit_masks would do without it"


MASK = RecordCheck("mask", 1, mask_fits, ("allow_unfit_masks",))
