"""Curation of single images by a person: accept, reject, undo a decision, take an image down for good."""

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
_TAKEN_DOWN = "Its bytes were removed for good"


def decide_by_person(
    session: Session, sha256: str, verdict: Literal["accepted", "rejected"], why: str, who: str
) -> str:
    """Record a person's verdict, which wins over every check; return the image's full SHA-256.

    The next cleaning decides similar images again, because the choice of the kept image may depend on this one.

    Raises:
        DataError: no such image, no reason given, the image was purged, or an accepted image cannot be decoded.
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
    """Withdraw a person's verdict, so that the next cleaning decides again; return the full SHA-256.

    Raises:
        DataError: no such image, no verdict of a person, or the image was purged.
    """
    image = _image(session, sha256)
    if image.rejected_by == PURGED:
        raise DataError(f"Image {image.sha256[:12]} was {image.reason}. {_TAKEN_DOWN}, so this cannot be undone.")
    if not withdraw_override(session, image.id, who):
        raise DataError(
            f"Image {image.sha256[:12]}: nobody has accepted or rejected it by hand, so there is nothing to undo."
        )
    undecided = {"verdict": None, "rejected_by": None, "reason": None, "copy_of_id": None, "rules": None}
    session.execute(update(ImageTable).where(ImageTable.id == image.id).values(undecided))
    return image.sha256


@dataclass(frozen=True)
class Purged:
    """Details of an image at its takedown, including its snapshots, versions and similar images.

    Attributes:
        copies: SHA-256 of rejected copies of the image. They stay rejected, each by its own override.
        masks: SHA-256 of masks that no other image uses.
    """

    details: ImageDetails
    override: Override
    copies: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()


def purge_image(session: Session, sha256: str, why: str, who: str) -> Purged:
    """Turn an image into a tombstone: rejected for good, without captions, mask or fingerprint.

    The caller removes the bytes. Snapshots keep their row of the image, because their digest covers it. A rejected
    copy of the image would now be the best of its group. It is rejected by an override of its own, which can be
    undone. A second purge changes nothing.

    Raises:
        DataError: no such image, or no reason given.
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
    session.execute(update(ImageTable).where(ImageTable.copy_of_id == image.id).values(copy_of_id=None))
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
        "copy_of_id": None,
        "rules": None,  # the next cleaning decides similar images again
    }
    session.execute(update(ImageTable).where(ImageTable.id == image_id).values(values))


def _delete_fingerprint(session: Session, fingerprint_id: int) -> None:
    """Delete a fingerprint and its pairs, unless another image has the same pixels."""
    if session.scalars(select(ImageTable.id).where(ImageTable.fingerprint_id == fingerprint_id).limit(1)).first():
        return
    same = same_as(session, [fingerprint_id])[fingerprint_id]
    # Members of the cluster have not been compared with each other: the next cleaning measures them again.
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
