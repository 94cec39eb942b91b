"""Caption checks: missing, short, garbled, or shared by too many images."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from sdlora.data.checks.base import Findings, RecordCheck
from sdlora.data.config import DataConfig
from sdlora.store.intake import chunks
from sdlora.store.queries import own_captions_of
from sdlora.store.tables import CaptionTable, ImageTable

_CHARS_SHOWN = 60
_SHARED = "caption_shared"


def caption_count(session: Session, image_ids: Sequence[int], config: DataConfig) -> Findings:
    """Number of captions of the image."""
    if not config.require_captions:
        return {}
    captions = own_captions_of(session, image_ids)
    return {image_id: _judge_missing(len(captions.get(image_id, ()))) for image_id in image_ids}


def _judge_missing(count: int) -> tuple[float, str | None]:
    return float(count), None if count else "no caption, and require_captions = true"


CAPTION_MISSING = RecordCheck("caption_missing", 1, caption_count, ("require_captions",))


def longest_caption(session: Session, image_ids: Sequence[int], config: DataConfig) -> Findings:
    """Characters of the longest caption; images without captions get no ruling."""
    if not config.min_caption_chars:
        return {}
    return {
        image_id: _judge_short(captions, config) for image_id, captions in own_captions_of(session, image_ids).items()
    }


def _judge_short(captions: Sequence[str], config: DataConfig) -> tuple[float, str | None]:
    longest = max(captions, key=len)
    if len(longest) >= config.min_caption_chars:
        return float(len(longest)), None
    reason = f"{longest!r} has {len(longest)} characters, fewer than min_caption_chars = {config.min_caption_chars}"
    return float(len(longest)), f"short caption: {reason}"


CAPTION_SHORT = RecordCheck("caption_short", 1, longest_caption, ("min_caption_chars",))


def garbled_captions(session: Session, image_ids: Sequence[int], config: DataConfig) -> Findings:
    """Number of captions with replacement or control characters, or with the wrong encoding according to ftfy."""
    if config.allow_garbled_captions:
        return {}
    return {image_id: _judge_garbled(captions) for image_id, captions in own_captions_of(session, image_ids).items()}


def _judge_garbled(captions: Sequence[str]) -> tuple[float, str | None]:
    garbled = [(text, why) for text in captions if (why := garbling(text))]
    if not garbled:
        return 0.0, None
    text, why = garbled[0]
    # In ASCII, because control characters do harm on the terminals and pages that show the reason.
    return float(len(garbled)), f"garbled caption {text[:_CHARS_SHOWN]!a}: {why}; allow_garbled_captions would keep it"


def garbling(text: str) -> str | None:
    """Describe the defect in the characters of a text; None without a defect."""
    if "\N{REPLACEMENT CHARACTER}" in text:
        return "it has characters that could not be decoded"
    if any(unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n\r" for character in text):
        return "it has control characters"
    if text.isascii():
        return None
    from ftfy.badness import is_bad

    return "it was read with the wrong encoding" if is_bad(text) else None


CAPTION_GARBLED = RecordCheck("caption_garbled", 1, garbled_captions, ("allow_garbled_captions",))


def images_per_caption(session: Session, image_ids: Sequence[int], config: DataConfig) -> Findings:
    """Number of images with its rarest caption, as counted when the image was last decided."""
    if not config.max_images_per_caption:
        return {}
    captions = own_captions_of(session, image_ids)
    counts = _counts(session, {text for image_captions in captions.values() for text in image_captions})
    rarest = {
        image_id: min((counts[text], text) for text in image_captions) for image_id, image_captions in captions.items()
    }
    return {image_id: _judge_shared(*count_and_text, config) for image_id, count_and_text in rarest.items()}


def _judge_shared(count: int, text: str, config: DataConfig) -> tuple[float, str | None]:
    if count <= config.max_images_per_caption:
        return float(count), None
    # The reason omits the count, because the count keeps changing and the verdict is not rewritten each time.
    return float(count), f"{text!r} is on more images than max_images_per_caption = {config.max_images_per_caption}"


def _affected(session: Session, image_ids: Sequence[int], config: DataConfig) -> Iterable[int]:
    """Return images whose ruling may change: their captions are now too common, or no longer too common."""
    limit = config.max_images_per_caption
    if not limit:
        return ()
    texts = {text for image_captions in own_captions_of(session, image_ids).values() for text in image_captions}
    common = [text for text, count in _counts(session, texts).items() if count > limit]
    accepted = select(ImageTable.id).join(CaptionTable).where(ImageTable.rejected_by.is_distinct_from(_SHARED))
    joining = {
        image_id
        for chunk in chunks(common)
        for image_id in session.scalars(accepted.where(CaptionTable.text.in_(chunk)))
    }
    rejected_ids = list(session.scalars(select(ImageTable.id).where(ImageTable.rejected_by == _SHARED)))
    leaving = {image_id for chunk in chunks(rejected_ids) for image_id in _no_longer_common(session, chunk, limit)}
    return joining | leaving


def _no_longer_common(session: Session, image_ids: Sequence[int], limit: int) -> set[int]:
    captions = own_captions_of(session, image_ids)
    counts = _counts(session, {text for image_captions in captions.values() for text in image_captions})
    return {
        image_id
        for image_id in image_ids
        if min((counts[text] for text in captions.get(image_id, ())), default=0) <= limit
    }


def _counts(session: Session, texts: Collection[str]) -> Mapping[str, int]:
    """Count the images with each of these captions."""
    counted = select(CaptionTable.text, func.count(CaptionTable.image_id.distinct())).group_by(CaptionTable.text)
    counts: dict[str, int] = {}
    for chunk in chunks(sorted(texts)):
        counts.update((text, count) for text, count in session.execute(counted.where(CaptionTable.text.in_(chunk))))
    return counts


CAPTION_SHARED = RecordCheck(_SHARED, 1, images_per_caption, ("max_images_per_caption",), _affected)
