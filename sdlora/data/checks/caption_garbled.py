"""Was a caption read with the wrong encoding?"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from sqlalchemy.orm import Session

from sdlora.data.checks.base import Findings, RecordCheck
from sdlora.data.config import DataConfig
from sdlora.store.queries import captions_of

_SHOWN = 60


def garbled_captions(session: Session, image_ids: Sequence[int], config: DataConfig) -> Findings:
    """Captions with replacement or control characters, or that ftfy takes for text read with the wrong encoding."""
    if config.allow_garbled_captions:
        return {}
    return {one: _judge(captions) for one, captions in captions_of(session, image_ids).items()}


def _judge(captions: Sequence[str]) -> tuple[float, str | None]:
    garbled = [(text, why) for text in captions if (why := garbling(text))]
    if not garbled:
        return 0.0, None
    text, why = garbled[0]
    # In ASCII: the reason is shown on terminals and pages, where control characters do harm.
    return float(len(garbled)), f"garbled caption {text[:_SHOWN]!a}: {why}; allow_garbled_captions would keep it"


def garbling(text: str) -> str | None:
    """What is wrong with the characters of a text, in words."""
    if "\N{REPLACEMENT CHARACTER}" in text:
        return "it has characters that could not be decoded"
    if any(unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n\r" for character in text):
        return "it has control characters"
    if text.isascii():
        return None
    from ftfy.badness import is_bad

    return "it was read with the wrong encoding" if is_bad(text) else None


CAPTION_GARBLED = RecordCheck("caption_garbled", 1, garbled_captions, ("allow_garbled_captions",))
