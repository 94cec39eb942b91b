"""Details of one image: captions, checks, similar images, overrides, ratings, snapshots and generations."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import cast

from sqlalchemy import case, or_, select
from sqlalchemy.orm import Session

from sdlora.store.generations import Generation, generations_of
from sdlora.store.intake import image_ids
from sdlora.store.lineage import Appearance, TrainedVersion, appearances_of
from sdlora.store.masks import Mask, masks_of
from sdlora.store.overrides import Override, override_history
from sdlora.store.queries import find_image, find_sha256
from sdlora.store.ratings import Rating, rating_history
from sdlora.store.records import ImageRecord, Origin, Verdict
from sdlora.store.tables import CaptionTable, CheckTable, ImageTable, SimilarPairTable, SourceTable

_MAX_SIMILAR = 20


@dataclass(frozen=True)
class SourcedCaption:
    """Caption of an image or of a rejected copy of the image.

    Attributes:
        source: name of the source; None for a person's edit.
        counts: whether training uses the caption.
        copy: SHA-256 of the copy; None for the image's own caption.
    """

    text: str
    origin: Origin
    source: str | None
    counts: bool
    copy: str | None = None


@dataclass(frozen=True)
class CheckRecord:
    """Latest result of a check for the image. `score` is None if there was nothing to measure."""

    name: str
    version: int
    score: float | None
    verdict: Verdict
    reason: str
    checked_at: datetime


@dataclass(frozen=True)
class SimilarImage:
    """Similar image and its difference in grey levels (0: the same pixels)."""

    sha256: str
    difference: float
    verdict: Verdict | None


@dataclass(frozen=True)
class ImageDetails:
    """Image with its captions, checks, similar images, overrides, ratings, mask, snapshots and generations.

    Attributes:
        kept_for: SHA-256 of the image that is kept, for a rejected copy.
        lent_captions: appearances of the kept image that have captions of this copy.
    """

    record: ImageRecord
    captions: tuple[SourcedCaption, ...]
    checks: tuple[CheckRecord, ...]
    similar: tuple[SimilarImage, ...]
    overrides: tuple[Override, ...]
    ratings: tuple[Rating, ...]
    mask: Mask | None
    appearances: tuple[Appearance, ...]
    generations: tuple[Generation, ...]
    kept_for: str | None = None
    lent_captions: tuple[Appearance, ...] = ()

    @property
    def trained_versions(self) -> tuple[TrainedVersion, ...]:
        """Versions trained on the image or its captions, without versions that were only evaluated on them."""
        return tuple(
            dict.fromkeys(
                version
                for appearance in (*self.appearances, *self.lent_captions)
                if appearance.split == "train"
                for version in appearance.snapshot.versions
            )
        )


@dataclass(frozen=True)
class DrawnDetails:
    """Image that a model drew and that is not collected, with its generations and ratings."""

    sha256: str
    generations: tuple[Generation, ...]
    ratings: tuple[Rating, ...]


def describe(session: Session, sha256: str) -> ImageDetails | DrawnDetails:
    """Collect the details of the collected or drawn image whose SHA-256 starts with the digits.

    Raises:
        DataError: no image, or more than one, starts with the digits.
    """
    full = find_sha256(session, sha256)
    if image_ids(session, [full]):
        return image_details(session, full)
    return DrawnDetails(full, generations_of(session, full), rating_history(session, full))


def image_details(session: Session, sha256: str) -> ImageDetails:
    """Collect the details of the collected image whose SHA-256 starts with the digits.

    Raises:
        DataError: no image, or more than one, starts with the digits.
    """
    record = find_image(session, sha256)
    image = session.scalars(select(ImageTable).where(ImageTable.sha256 == record.sha256)).one()
    kept = session.get(ImageTable, image.copy_of_id) if image.copy_of_id is not None else None
    return ImageDetails(
        record=record,
        captions=_captions(session, image.id, record),
        checks=_checks(session, image.id),
        similar=_similar(session, image),
        overrides=override_history(session, image.id),
        ratings=rating_history(session, image.sha256),
        mask=masks_of(session, [image.id]).get(image.id),
        appearances=appearances_of(session, image.id),
        generations=generations_of(session, record.sha256),
        kept_for=kept.sha256 if kept else None,
        lent_captions=_lent_captions(session, image.id, kept.id) if kept else (),
    )


def _captions(session: Session, image_id: int, record: ImageRecord) -> tuple[SourcedCaption, ...]:
    is_own = ImageTable.id == image_id
    statement = (
        select(CaptionTable.text, CaptionTable.origin, SourceTable.name, ImageTable.sha256)
        .join(ImageTable, ImageTable.id == CaptionTable.image_id)
        .outerjoin(SourceTable, SourceTable.id == CaptionTable.source_id)
        .where(or_(is_own, ImageTable.copy_of_id == image_id))
        .order_by(is_own.desc(), SourceTable.name, CaptionTable.position, CaptionTable.text)
    )
    return tuple(
        SourcedCaption(
            text, cast("Origin", origin), source, text in record.captions, None if sha256 == record.sha256 else sha256
        )
        for text, origin, source, sha256 in session.execute(statement)
    )


def _lent_captions(session: Session, copy_id: int, kept_id: int) -> tuple[Appearance, ...]:
    """List the snapshots in which the kept image has a caption that only its copy brought."""
    texts_by_id: dict[int, set[str]] = {copy_id: set(), kept_id: set()}
    statement = select(CaptionTable.image_id, CaptionTable.text).where(CaptionTable.image_id.in_(texts_by_id))
    for image_id, text in session.execute(statement):
        texts_by_id[image_id].add(text)
    lent = texts_by_id[copy_id] - texts_by_id[kept_id]
    return tuple(
        appearance for appearance in appearances_of(session, kept_id) if not lent.isdisjoint(appearance.captions)
    )


def _checks(session: Session, image_id: int) -> tuple[CheckRecord, ...]:
    """Read the newest result of each check; older results are of an earlier version or other settings."""
    statement = select(CheckTable).where(CheckTable.image_id == image_id).order_by(CheckTable.checked_at)
    newest = {row.name: row for row in session.scalars(statement)}
    return tuple(
        CheckRecord(row.name, row.version, row.score, cast("Verdict", row.verdict), row.reason, row.checked_at)
        for row in newest.values()
    )


def _similar(session: Session, image: ImageTable) -> tuple[SimilarImage, ...]:
    if image.fingerprint_id is None:
        return ()
    own_id = image.fingerprint_id
    other = case((SimilarPairTable.first_id == own_id, SimilarPairTable.second_id), else_=SimilarPairTable.first_id)
    pairs = session.execute(
        select(other, SimilarPairTable.difference)
        .where(or_(SimilarPairTable.first_id == own_id, SimilarPairTable.second_id == own_id))
        .order_by(SimilarPairTable.difference)
        .limit(_MAX_SIMILAR)
    )
    differences: dict[int, float] = {own_id: 0.0, **{row[0]: row[1] for row in pairs}}
    statement = select(ImageTable.sha256, ImageTable.fingerprint_id, ImageTable.verdict).where(
        ImageTable.fingerprint_id.in_(differences), ImageTable.id != image.id
    )
    similar = [
        SimilarImage(sha256, differences[fingerprint_id], cast("Verdict | None", verdict))
        for sha256, fingerprint_id, verdict in session.execute(statement)
    ]
    return tuple(sorted(similar, key=lambda image: (image.difference, image.sha256))[:_MAX_SIMILAR])
