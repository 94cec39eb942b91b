"""Mask check: the mask must be readable and have the proportions of its image."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from sdlora.data.checks.base import Findings, RecordCheck
from sdlora.data.config import DataConfig
from sdlora.store.masks import Mask, masks_of


def mask_fits(session: Session, member_ids: Sequence[int], config: DataConfig) -> Findings:
    """1 if the mask of the image can be used, else 0; images without a mask get no ruling."""
    if config.allow_unfit_masks:
        return {}
    return {member_id: _judge(mask) for member_id, mask in masks_of(session, member_ids).items()}


def _judge(mask: Mask) -> tuple[float, str | None]:
    if mask.problem is None:
        return 1.0, None
    return 0.0, f"its mask {mask.path} cannot be used: {mask.problem}; allow_unfit_masks would keep the image"


MASK = RecordCheck("mask", 1, mask_fits, ("allow_unfit_masks",))
