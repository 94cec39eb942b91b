"""Take a person's verdict back, and let the checks decide again from what is recorded."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from sdlora.data.checks.unsafe import UNSAFE
from sdlora.data.config import DataConfig
from sdlora.data.deciding import decide_images
from sdlora.data.ledger import known_of, needs_measuring, rules_digest
from sdlora.store import ImageRecord, ImageStore, curation
from sdlora.store.intake import image_ids
from sdlora.store.queries import find_image
from sdlora.store.tables import ImageTable


def undo_decision(store: ImageStore, sha256: str, who: str, config: DataConfig) -> ImageRecord:
    """Take a person's verdict on an image back; returns the image with the verdict it has now.

    The checks decide at once, over it and its look-alikes, and no file is opened. Where they cannot, because scores
    are missing or other images were judged under other settings, the verdict is None until the next cleaning.

    Args:
        sha256: the first digits suffice.
        config: the settings that images are cleaned under.

    Raises:
        DataError: no such image, nobody has decided of it, or it was purged.
    """
    rules = rules_digest(config)
    with store.write() as session:
        full = curation.undo_decision(session, sha256, who)
        image_id = image_ids(session, [full])[full]
        if _suffices(session, image_id, rules, config):
            decide_images(session, [image_id], rules, config)
        session.expire_all()
        return find_image(session, full)


def _suffices(session: Session, image_id: int, rules: str, config: DataConfig) -> bool:
    """Whether cleaning with these settings would decide the image unseen."""
    if session.scalars(select(ImageTable.id).where(ImageTable.rules == rules).limit(1)).first() is None:
        return False  # a verdict under rules that nobody else is judged by would mislead
    (known,) = known_of(session, [image_id])
    if needs_measuring(known, config):
        return False
    # Without pixels a model has nothing to say, and the image is turned down anyway.
    needs_model = bool(config.unsafe_model) and known.fingerprint_id is not None
    return not needs_model or bool(UNSAFE.judge(session, [image_id], config))
