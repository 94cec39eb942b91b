"""Details of one image in a dataset: captions, checks, similar images, overrides, ratings, snapshots, generations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from sqlalchemy import func, literal, or_, select, union_all
from sqlalchemy.orm import Session

from sdlora.store.generations import Generation, generations_of
from sdlora.store.lineage import Appearance, ImageLineage, TrainedVersion, image_lineage
from sdlora.store.masks import Mask, masks_of
from sdlora.store.overrides import Override, override_history, takedown_of
from sdlora.store.queries import find_image, find_member
from sdlora.store.ratings import Rating, rating_history
from sdlora.store.records import ImageRecord, Origin, Verdict
from sdlora.store.tables.datasets import CaptionTable, DatasetTable, MemberTable, RulingTable, SourceTable
from sdlora.store.tables.images import DecodingTable, ImageTable, ScoreTable, SimilarPairTable

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
    """Result of a check for the image under the settings of the last cleaning.

    Attributes:
        score: None if there was nothing to measure.
        reason: reason for the rejection; empty if the image passes.
    """

    name: str
    version: int
    score: float | None
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class SimilarImage:
    """Similar image, its difference in grey levels (0: the same pixels), and its verdict in a dataset."""

    sha256: str
    difference: float
    verdict: Verdict | None
    dataset: str


@dataclass(frozen=True)
class ImageDetails:
    """Image in a dataset with everything known about it.

    Attributes:
        record: the image in this dataset. Captions, checks, similar images, overrides and mask are of this dataset too.
        lineage: datasets, snapshots and versions of all styles.
        kept_for: SHA-256 of the image that the dataset keeps, for a rejected copy.
    """

    record: ImageRecord
    captions: tuple[SourcedCaption, ...]
    checks: tuple[CheckRecord, ...]
    similar: tuple[SimilarImage, ...]
    overrides: tuple[Override, ...]
    ratings: tuple[Rating, ...]
    mask: Mask | None
    lineage: ImageLineage
    generations: tuple[Generation, ...]
    kept_for: str | None = None

    @property
    def appearances(self) -> tuple[Appearance, ...]:
        """Snapshots of all datasets that hold the image."""
        return self.lineage.appearances

    @property
    def lent_captions(self) -> tuple[Appearance, ...]:
        """Snapshots of all datasets that hold captions of this copy on the image that is kept for it."""
        return self.lineage.lent_captions

    @property
    def trained_versions(self) -> tuple[TrainedVersion, ...]:
        """Versions trained on the image or its captions, without versions that were only evaluated on them."""
        return self.lineage.trained_versions


@dataclass(frozen=True)
class DrawnDetails:
    """Image that a model drew and that is not collected, with its generations and ratings."""

    sha256: str
    generations: tuple[Generation, ...]
    ratings: tuple[Rating, ...]


def drawn_details(session: Session, sha256: str) -> DrawnDetails:
    """Collect the generations and ratings of a drawn image, given by its full SHA-256."""
    return DrawnDetails(sha256, generations_of(session, sha256), rating_history(session, sha256))


def image_details(session: Session, dataset_id: int, sha256: str) -> ImageDetails:
    """Collect the details of the image of the dataset whose SHA-256 starts with the digits.

    Raises:
        DataError: no image of the dataset, or more than one, starts with the digits.
    """
    member = session.get_one(MemberTable, find_member(session, dataset_id, sha256))
    record = find_image(session, dataset_id, member.image.sha256)
    takedown = takedown_of(session, member.image_id)
    fingerprint_id = member.decoding.fingerprint_id if member.decoding else None
    kept = session.get_one(MemberTable, member.copy_of_id).image if member.copy_of_id is not None else None
    return ImageDetails(
        record=record,
        captions=_captions(session, member.id, record),
        checks=_checks(session, member),
        similar=similar_images(session, member.image_id, [fingerprint_id] if fingerprint_id else [], dataset_id),
        overrides=(*override_history(session, member.id), *([takedown] if takedown else [])),
        ratings=rating_history(session, record.sha256),
        mask=masks_of(session, [member.id]).get(member.id),
        lineage=image_lineage(session, record.sha256),
        generations=generations_of(session, record.sha256),
        kept_for=kept.sha256 if kept else None,
    )


def _captions(session: Session, member_id: int, record: ImageRecord) -> tuple[SourcedCaption, ...]:
    is_own = MemberTable.id == member_id
    statement = (
        select(CaptionTable.text, CaptionTable.origin, SourceTable.name, ImageTable.sha256)
        .join(MemberTable, MemberTable.id == CaptionTable.member_id)
        .join(ImageTable, ImageTable.id == MemberTable.image_id)
        .outerjoin(SourceTable, SourceTable.id == CaptionTable.source_id)
        .where(or_(is_own, MemberTable.copy_of_id == member_id))
        .order_by(is_own.desc(), SourceTable.name, CaptionTable.position, CaptionTable.text)
    )
    return tuple(
        SourcedCaption(
            text, cast("Origin", origin), source, text in record.captions, None if sha256 == record.sha256 else sha256
        )
        for text, origin, source, sha256 in session.execute(statement)
    )


def _checks(session: Session, member: MemberTable) -> tuple[CheckRecord, ...]:
    """Combine the scores of the member's decoding with the checks that reject the member, by name of the check."""
    of_decoding = select(ScoreTable).where(ScoreTable.decoding_id == member.decoding_id).order_by(ScoreTable.version)
    records = {
        row.name: CheckRecord(row.name, row.version, row.score, "accepted", "") for row in session.scalars(of_decoding)
    }
    for row in session.scalars(select(RulingTable).where(RulingTable.member_id == member.id)):
        records[row.name] = CheckRecord(row.name, row.version, row.score, "rejected", row.reason)
    return tuple(records[name] for name in sorted(records))


def similar_images(
    session: Session, image_id: int, fingerprint_ids: Sequence[int], dataset_id: int | None = None
) -> tuple[SimilarImage, ...]:
    """List the members that look like an image, the most similar first.

    Args:
        fingerprint_ids: fingerprints of the image.
        dataset_id: dataset of the members; None means every dataset.
    """
    first_id, second_id, difference = (
        SimilarPairTable.first_id,
        SimilarPairTable.second_id,
        SimilarPairTable.difference,
    )
    pairs = union_all(
        select(second_id.label("other"), difference).where(first_id.in_(fingerprint_ids)),
        select(first_id, difference).where(second_id.in_(fingerprint_ids)),
        select(DecodingTable.fingerprint_id, literal(0.0))
        .where(DecodingTable.fingerprint_id.in_(fingerprint_ids))
        .distinct(),
    ).subquery()
    statement = (
        select(ImageTable.sha256, func.min(pairs.c.difference), MemberTable.verdict, DatasetTable.name)
        .join(DecodingTable, DecodingTable.fingerprint_id == pairs.c.other)
        .join(MemberTable, MemberTable.decoding_id == DecodingTable.id)
        .join(ImageTable, ImageTable.id == MemberTable.image_id)
        .join(DatasetTable, DatasetTable.id == MemberTable.dataset_id)
        .where(ImageTable.id != image_id, MemberTable.removed_at.is_(None))
        .group_by(ImageTable.sha256, MemberTable.verdict, DatasetTable.name)
        .order_by(func.min(pairs.c.difference), ImageTable.sha256, DatasetTable.name)
        .limit(_MAX_SIMILAR)
    )
    if dataset_id is not None:
        statement = statement.where(MemberTable.dataset_id == dataset_id)
    return tuple(
        SimilarImage(sha256, least, cast("Verdict | None", verdict), dataset)
        for sha256, least, verdict, dataset in session.execute(statement)
    )
