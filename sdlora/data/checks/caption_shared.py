"""Is its caption on so many other images that it says nothing of this one?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from sdlora.data.checks.base import Findings, RecordCheck
from sdlora.data.config import DataConfig
from sdlora.store.intake import chunks
from sdlora.store.queries import captions_of
from sdlora.store.tables import CaptionTable, ImageTable

NAME = "caption_shared"


def images_per_caption(session: Session, image_ids: Sequence[int], config: DataConfig) -> Findings:
    """On how many images its rarest caption was, whatever else was said of those, when this was last decided."""
    if not config.max_images_per_caption:
        return {}
    captions = captions_of(session, image_ids)
    counts = _counts(session, {text for listed in captions.values() for text in listed})
    return {one: _judge(min((counts[text], text) for text in listed), config) for one, listed in captions.items()}


def _judge(rarest: tuple[int, str], config: DataConfig) -> tuple[float, str | None]:
    count, text = rarest
    if count <= config.max_images_per_caption:
        return float(count), None
    # The count is not part of the reason: it goes on changing, and the verdict is not written anew each time.
    return float(count), f"{text!r} is on more images than max_images_per_caption = {config.max_images_per_caption}"


def _affected(session: Session, image_ids: Sequence[int], config: DataConfig) -> Iterable[int]:
    """Images that share a caption with these and are now too many, or were too many and no longer are."""
    limit = config.max_images_per_caption
    if not limit:
        return ()
    texts = {text for listed in captions_of(session, image_ids).values() for text in listed}
    common = [text for text, count in _counts(session, texts).items() if count > limit]
    accepted = select(ImageTable.id).join(CaptionTable).where(ImageTable.rejected_by.is_distinct_from(NAME))
    joining = {one for chunk in chunks(common) for one in session.scalars(accepted.where(CaptionTable.text.in_(chunk)))}
    turned_down = list(session.scalars(select(ImageTable.id).where(ImageTable.rejected_by == NAME)))
    leaving = {one for chunk in chunks(turned_down) for one in _no_longer_common(session, chunk, limit)}
    return joining | leaving


def _no_longer_common(session: Session, image_ids: Sequence[int], limit: int) -> set[int]:
    captions = captions_of(session, image_ids)
    counts = _counts(session, {text for listed in captions.values() for text in listed})
    return {one for one in image_ids if min((counts[text] for text in captions.get(one, ())), default=0) <= limit}


def _counts(session: Session, texts: Collection[str]) -> Mapping[str, int]:
    """On how many images each of these captions is."""
    counted = select(CaptionTable.text, func.count(CaptionTable.image_id.distinct())).group_by(CaptionTable.text)
    found: dict[str, int] = {}
    for chunk in chunks(sorted(texts)):
        found.update((text, count) for text, count in session.execute(counted.where(CaptionTable.text.in_(chunk))))
    return found


CAPTION_SHARED = RecordCheck(NAME, 1, images_per_caption, ("max_images_per_caption",), _affected)
