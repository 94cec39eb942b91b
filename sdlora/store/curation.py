"""What a person does to single images: accept, reject, take a decision back, take an image down for good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from sdlora.core.errors import DataError
from sdlora.store.clusters import MIN_MEMBERS, cluster_of, pairs_of, same_as
from sdlora.store.details import ImageDetails, image_details
from sdlora.store.intake import chunks
from sdlora.store.masks import delete_masks
from sdlora.store.overrides import PERSON, PURGED, Override, add_override, overrides_of, withdraw_override
from sdlora.store.queries import find_image
from sdlora.store.tables import CaptionTable, FingerprintTable, ImageTable, SimilarPairTable

_COPY_CHECKS = ("exact_duplicate", "near_duplicate")
_TAKEN_DOWN = "Its bytes are gone and do not come back"


def decide_by_person(
    session: Session, sha256: str, verdict: Literal["accepted", "rejected"], why: str, who: str
) -> str:
    """Let a person's verdict win over every check from now on; returns the image's whole SHA-256.

    Images that look alike are judged again by the next cleaning: which of them is kept may depend on this one.

    Raises:
        DataError: no such image, no reason, the image was purged, or it is to be accepted but cannot be decoded.
    """
    image = _image(session, sha256)
    if image.rejected_by == PURGED:
        raise DataError(f"Image {image.sha256[:12]} was {image.reason}. {_TAKEN_DOWN}.")
    if verdict == "accepted" and image.problem is not None:
        raise DataError(
            f"Image {image.sha256[:12]} cannot be accepted: {image.problem}. There are no pixels to train on; "
            "repair the file and collect it again."
        )
    override = add_override(session, image.id, verdict, _reason(why), who)
    _set_verdict(session, image.id, override)
    return image.sha256


def undo_decision(session: Session, sha256: str, who: str) -> str:
    """Take a person's verdict back: the checks decide again at the next cleaning. Returns the whole SHA-256.

    Raises:
        DataError: no such image, nobody has decided of it, or it was purged.
    """
    image = _image(session, sha256)
    if image.rejected_by == PURGED:
        raise DataError(f"Image {image.sha256[:12]} was {image.reason}. {_TAKEN_DOWN}, so this cannot be undone.")
    if not withdraw_override(session, image.id, who):
        raise DataError(
            f"Image {image.sha256[:12]}: nobody has accepted or rejected it by hand, there is nothing to undo."
        )
    undecided = {"verdict": None, "rejected_by": None, "reason": None, "rules": None}
    session.execute(update(ImageTable).where(ImageTable.id == image.id).values(undecided))
    return image.sha256


@dataclass(frozen=True)
class Purged:
    """What was known of an image when it was taken down: its snapshots, versions and look-alikes among it.

    Attributes:
        copies: images that were left out as copies of it, by SHA-256. They stay left out, by a decision of their own.
        masks: bytes of its masks that no other image needs, by SHA-256.
    """

    details: ImageDetails
    override: Override
    copies: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()


def purge_image(session: Session, sha256: str, why: str, who: str) -> Purged:
    """Make an image a tombstone: no captions, mask or fingerprint, rejected for good. Bytes are the caller's to remove.

    Snapshots keep their row of it, because their digest covers it. An image that was left out as its copy would be
    the best of its group now; it is rejected by the same word, which can be taken back. A second
    purge changes nothing.

    Raises:
        DataError: no such image, or no reason.
    """
    details = image_details(session, sha256)
    image = _image(session, details.record.sha256)
    existing = overrides_of(session, [image.id]).get(image.id)
    if existing is not None and existing.verdict == PURGED:
        return Purged(details, existing)
    override = add_override(session, image.id, "purged", _reason(why), who)
    copies = _reject_copies(session, details, override)
    masks = delete_masks(session, image.id)
    session.execute(delete(CaptionTable).where(CaptionTable.image_id == image.id))
    fingerprint_id = image.fingerprint_id
    image.fingerprint_id = None
    session.flush()
    if fingerprint_id is not None:
        _delete_fingerprint(session, fingerprint_id)
    _set_verdict(session, image.id, override)
    return Purged(details, override, copies, masks)


def _reject_copies(session: Session, details: ImageDetails, purge: Override) -> tuple[str, ...]:
    similar_shas = [image.sha256 for image in details.similar]
    statement = select(ImageTable.fingerprint_id).where(ImageTable.sha256 == details.record.sha256)
    fingerprint_id = session.scalars(statement).one()
    cluster = cluster_of(session, fingerprint_id) if fingerprint_id is not None else set()
    is_copy = ImageTable.rejected_by.in_(_COPY_CHECKS)
    copies_by_id: dict[int, ImageTable] = {}
    for chunk in chunks(similar_shas):
        copies_by_id |= {
            image.id: image
            for image in session.scalars(select(ImageTable).where(ImageTable.sha256.in_(chunk), is_copy))
        }
    for fingerprint_ids in chunks(sorted(cluster)):
        of_cluster = select(ImageTable).where(ImageTable.fingerprint_id.in_(fingerprint_ids), is_copy)
        copies_by_id |= {image.id: image for image in session.scalars(of_cluster)}
    copies = [
        copies_by_id[image_id]
        for image_id in sorted(copies_by_id)
        if copies_by_id[image_id].sha256 != details.record.sha256
    ]
    for copy in copies:
        why = f"looks like image {details.record.sha256[:12]}, which was purged: {purge.why}"
        _set_verdict(session, copy.id, add_override(session, copy.id, "rejected", why, purge.who))
    return tuple(copy.sha256 for copy in copies)


def _set_verdict(session: Session, image_id: int, override: Override) -> None:
    rejected_by = {"accepted": None, "rejected": PERSON, "purged": PURGED}[override.verdict]
    values = {
        "verdict": "accepted" if override.verdict == "accepted" else "rejected",
        "rejected_by": rejected_by,
        "reason": override.reason,
        "rules": None,  # its look-alikes are to be judged anew
    }
    session.execute(update(ImageTable).where(ImageTable.id == image_id).values(values))


def _delete_fingerprint(session: Session, fingerprint_id: int) -> None:
    """Remove what the pixels look like, unless another image shows the same ones."""
    if session.scalars(select(ImageTable.id).where(ImageTable.fingerprint_id == fingerprint_id).limit(1)).first():
        return
    same = same_as(session, [fingerprint_id])[fingerprint_id]
    # The members of its cluster have not been compared with each other: the next cleaning measures them again.
    deleted = [*same, fingerprint_id] if len(same) >= MIN_MEMBERS else [fingerprint_id]
    for chunk in chunks(deleted):
        session.execute(
            update(ImageTable).where(ImageTable.fingerprint_id.in_(chunk)).values(fingerprint_id=None, rules=None)
        )
        session.execute(delete(SimilarPairTable).where(pairs_of(chunk)))
        session.execute(delete(FingerprintTable).where(FingerprintTable.id.in_(chunk)))


def _image(session: Session, sha256: str) -> ImageTable:
    full = find_image(session, sha256).sha256
    return session.scalars(select(ImageTable).where(ImageTable.sha256 == full)).one()


def _reason(why: str) -> str:
    reason = " ".join(why.split())
    if not reason:
        raise DataError("--why is empty; expected the reason in a few words. It is kept with the decision.")
    return reason
