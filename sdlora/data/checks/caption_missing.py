"""Does anything say what the image shows?"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from sdlora.data.checks.base import Findings, RecordCheck
from sdlora.data.config import DataConfig
from sdlora.store.queries import captions_of


def caption_count(session: Session, image_ids: Sequence[int], config: DataConfig) -> Findings:
    """How many captions count for the image."""
    if not config.require_captions:
        return {}
    captions = captions_of(session, image_ids)
    return {one: _judge(len(captions.get(one, ()))) for one in image_ids}


def _judge(count: int) -> tuple[float, str | None]:
    return float(count), None if count else "no caption, and require_captions = true"


CAPTION_MISSING = RecordCheck("caption_missing", 1, caption_count, ("require_captions",))
