"""Caption checks: missing, short, garbled, or shared by too many images."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from sdlora.data.checks.base import Findings, RecordCheck
from sdlora.data.config import DataConfig
from sdlora.store.bulk import chunks
from sdlora.store.queries import own_captions_of
from sdlora.store.tables.datasets import CaptionTable, MemberTable

_CHARS_SHOWN = 60
_SHARED = "caption_shared"


def caption_count(session: Session, member_ids: Sequence[int], config: DataConfig) -> Findings:
    """Number of captions of the image."""
    if not config.require_captions:
        return {}
    captions = own_captions_of(session, member_ids)
    return {member_id: _judge_missing(len(captions.get(member_id, ()))) for member_id in member_ids}


def _judge_missing(count: int) -> tuple[float, str | None]:
    return float(count), None if count else "no caption, and require_captions = true"


CAPTION_MISSING = RecordCheck("caption_missing", 1, caption_count, ("require_captions",))


def longest_caption(session: Session, member_ids: Sequence[int], config: DataConfig) -> Findings:
    """Characters of the longest caption; images without captions get no ruling."""
    if not config.min_caption_chars:
        return {}
    return {
        member_id: _judge_short(captions, config)
        for member_id, captions in own_captions_of(session, member_ids).items()
    }


def _judge_short(captions: Sequence[str], config: DataConfig) -> tuple[float, str | None]:
    longest = max(captions, key=len)
    if len(longest) >= config.min_caption_chars:
        return float(len(longest)), None
    reason = f"{longest!r} has {len(longest)} characters, fewer than min_caption_chars = {config.min_caption_chars}"
    return float(len(longest)), f"short caption: {reason}"


CAPTION_SHORT = RecordCheck("caption_short", 1, longest_caption, ("min_caption_chars",))


def garbled_captions(session: Session, member_ids: Sequence[int], config: DataConfig) -> Findings:
    """Number of captions with replacement or control characters, or with the wrong encoding according to ftfy."""
    if config.allow_garbled_captions:
        return {}
    return {member_id: _judge_garbled(captions) for member_id, captions in own_captions_of(session, member_ids).items()}


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


def images_per_caption(session: Session, member_ids: Sequence[int], config: DataConfig) -> Findings:
    """Number of images with its rarest caption, as counted when the image was last decided."""
    captions = own_captions_of(session, member_ids) if config.max_images_per_caption else {}
    if not captions:
        return {}
    dataset_id = session.scalars(select(MemberTable.dataset_id).where(MemberTable.id.in_(member_ids)).limit(1)).one()
    texts = {text for member_captions in captions.values() for text in member_captions}
    counts = _counts(session, dataset_id, texts)
    rarest = {
        member_id: min((counts[text], text) for text in member_captions)
        for member_id, member_captions in captions.items()
    }
    return {member_id: _judge_shared(*count_and_text, config) for member_id, count_and_text in rarest.items()}


def _judge_shared(count: int, text: str, config: DataConfig) -> tuple[float, str | None]:
    if count <= config.max_images_per_caption:
        return float(count), None
    # The reason omits the count, because the count keeps changing and the verdict is not rewritten each time.
    return float(count), f"{text!r} is on more images than max_images_per_caption = {config.max_images_per_caption}"


def _affected(session: Session, dataset_id: int, member_ids: Sequence[int], config: DataConfig) -> Iterable[int]:
    """Return members whose ruling may change: their captions are now too common, or no longer too common."""
    limit = config.max_images_per_caption
    if not limit:
        return ()
    texts = {text for member_captions in own_captions_of(session, member_ids).values() for text in member_captions}
    common = [text for text, count in _counts(session, dataset_id, texts).items() if count > limit]
    accepted = select(MemberTable.id).join(CaptionTable).where(MemberTable.rejected_by.is_distinct_from(_SHARED))
    accepted = accepted.where(MemberTable.dataset_id == dataset_id)
    joining = {
        member_id
        for chunk in chunks(common)
        for member_id in session.scalars(accepted.where(CaptionTable.text.in_(chunk)))
    }
    rejected = select(MemberTable.id).where(MemberTable.dataset_id == dataset_id, MemberTable.rejected_by == _SHARED)
    leaving = {
        member_id
        for chunk in chunks(session.scalars(rejected).all())
        for member_id in _no_longer_common(session, dataset_id, chunk, limit)
    }
    return joining | leaving


def _no_longer_common(session: Session, dataset_id: int, member_ids: Sequence[int], limit: int) -> set[int]:
    captions = own_captions_of(session, member_ids)
    texts = {text for member_captions in captions.values() for text in member_captions}
    counts = _counts(session, dataset_id, texts)
    return {
        member_id
        for member_id in member_ids
        if min((counts[text] for text in captions.get(member_id, ())), default=0) <= limit
    }


def _counts(session: Session, dataset_id: int, texts: Collection[str]) -> Mapping[str, int]:
    """Count the members of the dataset with each of these captions."""
    counted = (
        select(CaptionTable.text, func.count(CaptionTable.member_id.distinct()))
        .join(MemberTable, MemberTable.id == CaptionTable.member_id)
        .where(MemberTable.dataset_id == dataset_id, MemberTable.removed_at.is_(None))
        .group_by(CaptionTable.text)
    )
    counts: dict[str, int] = dict.fromkeys(texts, 0)
    for chunk in chunks(sorted(texts)):
        counts.update((text, count) for text, count in session.execute(counted.where(CaptionTable.text.in_(chunk))))
    return counts


CAPTION_SHARED = RecordCheck(_SHARED, 1, images_per_caption, ("max_images_per_caption",), _affected)
