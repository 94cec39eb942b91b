"""Does its caption say enough?"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from sdlora.data.checks.base import Findings, RecordCheck
from sdlora.data.config import DataConfig
from sdlora.store.queries import captions_of


def longest_caption(session: Session, image_ids: Sequence[int], config: DataConfig) -> Findings:
    """Characters of the longest caption that counts; images without one are no concern of this check."""
    if not config.min_caption_chars:
        return {}
    return {one: _judge(captions, config) for one, captions in captions_of(session, image_ids).items()}


def _judge(captions: Sequence[str], config: DataConfig) -> tuple[float, str | None]:
    longest = max(captions, key=len)
    if len(longest) >= config.min_caption_chars:
        return float(len(longest)), None
    reason = f"{longest!r} has {len(longest)} characters, fewer than min_caption_chars = {config.min_caption_chars}"
    return float(len(longest)), f"short caption: {reason}"


CAPTION_SHORT = RecordCheck("caption_short", 1, longest_caption, ("min_caption_chars",))
