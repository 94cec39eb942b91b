"""Curation of single images by a person: accept, reject, undo a decision, take an image down for good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from sdlora.core.errors import DataError
from sdlora.store.bulk import chunks
from sdlora.store.clusters import MIN_MEMBERS, pairs_of, same_as
from sdlora.store.details import SimilarImage, similar_images
from sdlora.store.lineage import ImageLineage, image_lineage
from sdlora.store.masks import delete_masks
from sdlora.store.overrides import (
    PERSON,
    PURGED,
    Override,
    add_override,
    add_takedown,
    takedown_of,
    withdraw_override,
)
from sdlora.store.queries import find_collected, find_member
from sdlora.store.tables.datasets import CaptionTable, MemberTable
from sdlora.store.tables.images import DecodingTable, FingerprintTable, ImageTable, SimilarPairTable

_TAKEN_DOWN = "Its bytes were removed for good"


def decide_by_person(
    session: Session, dataset_id: int, sha256: str, verdict: Literal["accepted", "rejected"], why: str, who: str
) -> str:
    """Record a person's verdict, which wins over every check of the dataset; return the image's full SHA-256.

    The next cleaning decides similar images again, because the choice of the kept image may depend on this one.

    Raises:
        DataError: no such image in the dataset, no reason given, the image was purged or removed, or an accepted image
            cannot be decoded.
    """
    member = _member(session, dataset_id, sha256)
    full_sha256 = member.image.sha256
    if member.rejected_by == PURGED:
        raise DataError(f"Image {full_sha256[:12]} was {member.reason}. {_TAKEN_DOWN}.")
    if member.removed_at is not None:
        raise DataError(
            f"Image {full_sha256[:12]} was removed from the dataset. Bring it back first: sdlora datasets add."
        )
    if verdict == "accepted" and member.decoding is not None and member.decoding.problem is not None:
        raise DataError(
            f"Image {full_sha256[:12]} cannot be accepted: {member.decoding.problem}. There are no pixels to train on; "
            "repair the file and collect it again."
        )
    override = add_override(session, member.id, verdict, _reason(why), who)
    _set_verdict(session, member.id, override)
    return full_sha256


def undo_decision(session: Session, dataset_id: int, sha256: str, who: str) -> str:
    """Withdraw a person's verdict, so that the next cleaning decides again; return the full SHA-256.

    Raises:
        DataError: no such image in the dataset, no verdict of a person, or the image was purged.
    """
    member = _member(session, dataset_id, sha256)
    full_sha256 = member.image.sha256
    if member.rejected_by == PURGED:
        raise DataError(f"Image {full_sha256[:12]} was {member.reason}. {_TAKEN_DOWN}, so this cannot be undone.")
    if not withdraw_override(session, member.id, who):
        raise DataError(
            f"Image {full_sha256[:12]}: nobody has accepted or rejected it by hand, so there is nothing to undo."
        )
    undecided = {"verdict": None, "rejected_by": None, "reason": None, "copy_of_id": None, "rules": None}
    session.execute(update(MemberTable).where(MemberTable.id == member.id).values(undecided))
    return full_sha256


@dataclass(frozen=True)
class Purged:
    """Outcome of a takedown.

    Attributes:
        lineage: datasets, snapshots and versions of the image at its takedown.
        captions: captions of all datasets, which are deleted.
        similar: images of all datasets that look like it.
        copies: SHA-256 of images that were left out as copies of the image. They stay rejected, each by its own
            override.
        masks: SHA-256 of masks that no other image uses.
    """

    lineage: ImageLineage
    override: Override
    captions: tuple[str, ...] = ()
    similar: tuple[SimilarImage, ...] = ()
    copies: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()


def purge_image(session: Session, sha256: str, why: str, who: str) -> Purged:
    """Turn an image into a tombstone in every dataset: rejected for good, without captions, mask or fingerprint.

    The caller removes the bytes. Snapshots keep their row of the image, because their digest covers it. An image that
    was left out as a copy would now be the best of its group. It is rejected by an override of its own, which can be
    undone. A second purge changes nothing.

    Raises:
        DataError: no such image, or no reason given.
    """
    image = session.scalars(select(ImageTable).where(ImageTable.sha256 == find_collected(session, sha256))).one()
    lineage = image_lineage(session, image.sha256)
    existing = takedown_of(session, image.id)
    if existing is not None:
        return Purged(lineage, existing)
    takedown = add_takedown(session, image.id, _reason(why), who)
    of_image = DecodingTable.image_id == image.id
    fingerprints = select(DecodingTable.fingerprint_id).where(of_image, DecodingTable.fingerprint_id.is_not(None))
    fingerprint_ids = [fingerprint_id for fingerprint_id in session.scalars(fingerprints) if fingerprint_id is not None]
    similar = similar_images(session, image.id, fingerprint_ids)
    member_ids = session.scalars(select(MemberTable.id).where(MemberTable.image_id == image.id)).all()
    captions = select(CaptionTable.text).where(CaptionTable.member_id.in_(member_ids)).distinct()
    texts = tuple(session.scalars(captions.order_by(CaptionTable.text)))
    copies = _reject_copies(session, image.sha256, member_ids, takedown)
    masks = delete_masks(session, image.id)
    for member_id in member_ids:
        withdraw_override(session, member_id, who)
        _set_verdict(session, member_id, takedown)
    session.execute(delete(CaptionTable).where(CaptionTable.member_id.in_(member_ids)))
    session.execute(update(DecodingTable).where(of_image).values(fingerprint_id=None))
    session.flush()
    for fingerprint_id in fingerprint_ids:
        _delete_fingerprint(session, fingerprint_id)
    return Purged(lineage, takedown, texts, similar, copies, masks)


def _reject_copies(session: Session, sha256: str, kept_ids: Sequence[int], purge: Override) -> tuple[str, ...]:
    """Reject the members that were left out because of the purged ones, each by an override."""
    statement = select(MemberTable.id, ImageTable.sha256).join(ImageTable, ImageTable.id == MemberTable.image_id)
    copies = session.execute(statement.where(MemberTable.copy_of_id.in_(kept_ids)).order_by(MemberTable.id)).all()
    for member_id, _ in copies:
        why = f"looks like image {sha256[:12]}, which was purged: {purge.why}"
        _set_verdict(session, member_id, add_override(session, member_id, "rejected", why, purge.who))
    return tuple(dict.fromkeys(copy.sha256 for copy in copies))


def _set_verdict(session: Session, member_id: int, override: Override) -> None:
    rejected_by = {"accepted": None, "rejected": PERSON, "purged": PURGED}[override.verdict]
    values = {
        "verdict": "accepted" if override.verdict == "accepted" else "rejected",
        "rejected_by": rejected_by,
        "reason": override.reason,
        "copy_of_id": None,
        "rules": None,  # the next cleaning decides similar images again
    }
    session.execute(update(MemberTable).where(MemberTable.id == member_id).values(values))


def _delete_fingerprint(session: Session, fingerprint_id: int) -> None:
    """Delete a fingerprint and its pairs, unless another image has the same pixels."""
    showing = select(DecodingTable.id).where(DecodingTable.fingerprint_id == fingerprint_id).limit(1)
    if session.scalars(showing).first() is not None:
        return
    same = same_as(session, [fingerprint_id])[fingerprint_id]
    # Members of the cluster have not been compared with each other: the next cleaning measures them again.
    deleted = [*same, fingerprint_id] if len(same) >= MIN_MEMBERS else [fingerprint_id]
    for chunk in chunks(deleted):
        measured_again = select(DecodingTable.id).where(DecodingTable.fingerprint_id.in_(chunk))
        session.execute(update(MemberTable).where(MemberTable.decoding_id.in_(measured_again)).values(rules=None))
        session.execute(
            update(DecodingTable).where(DecodingTable.fingerprint_id.in_(chunk)).values(fingerprint_id=None)
        )
        session.execute(delete(SimilarPairTable).where(pairs_of(chunk)))
        session.execute(delete(FingerprintTable).where(FingerprintTable.id.in_(chunk)))


def _member(session: Session, dataset_id: int, sha256: str) -> MemberTable:
    return session.get_one(MemberTable, find_member(session, dataset_id, sha256))


def _reason(why: str) -> str:
    reason = " ".join(why.split())
    if not reason:
        raise DataError("--why is empty; expected the reason in a few words. It is kept with the decision.")
    return reason
