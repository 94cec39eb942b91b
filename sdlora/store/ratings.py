"""Ratings of generated or collected images by people: 1 to 5 stars, kept with who, when and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from sdlora.core.errors import DataError
from sdlora.store.overrides import purged_reasons
from sdlora.store.queries import find_sha256
from sdlora.store.tables.base import utc_now
from sdlora.store.tables.datasets import MemberTable
from sdlora.store.tables.images import ImageTable
from sdlora.store.tables.ratings import GenerationTable, RatingTable

MIN_STARS, MAX_STARS = 1, 5


@dataclass(frozen=True)
class Rating:
    """Rating of an image by a person; the newest rating that is not withdrawn counts. `why` may be empty."""

    stars: int
    rater: str
    why: str
    rated_at: datetime
    withdrawn_at: datetime | None = None


@dataclass(frozen=True)
class RatedGeneration:
    """Generated image with the mean of its ratings."""

    id: int
    sha256: str
    prompt: str
    model_version: str
    mean_stars: float


def rate(session: Session, sha256: str, stars: int, rater: str, why: str = "") -> str:
    """Record a person's rating, which replaces an earlier one. `session` holds the write lock.

    Args:
        sha256: the first digits of a collected or generated image.
    Returns:
        The full SHA-256.
    Raises:
        DataError: the stars are not 1 to 5, there is no such image, or the image was purged.
    """
    if not MIN_STARS <= stars <= MAX_STARS:
        raise DataError(f"stars = {stars}: expected {MIN_STARS} to {MAX_STARS}.")
    full = _find_rateable(session, sha256)
    withdraw_rating(session, full, rater)
    session.add(RatingTable(sha256=full, rater=rater, stars=stars, why=" ".join(why.split()) or None))
    return full


def undo_rating(session: Session, sha256: str, rater: str) -> str:
    """Withdraw a person's rating, which stays in the history; return the full SHA-256.

    Raises:
        DataError: no such image, or the person has not rated the image.
    """
    full = _find_rateable(session, sha256)
    if not withdraw_rating(session, full, rater):
        raise DataError(f"Image {full[:12]}: {rater} has not rated it, so there is no rating to withdraw (--by).")
    return full


def withdraw_rating(session: Session, sha256: str, rater: str) -> bool:
    """Withdraw the rating of an image by a person; return True if there was one."""
    is_active = (RatingTable.sha256 == sha256) & (RatingTable.rater == rater) & RatingTable.withdrawn_at.is_(None)
    rating_ids = session.scalars(select(RatingTable.id).where(is_active)).all()
    session.execute(update(RatingTable).where(is_active).values(withdrawn_at=utc_now()))
    return bool(rating_ids)


def rating_history(session: Session, sha256: str) -> tuple[Rating, ...]:
    """List all ratings of an image, withdrawn ones included, oldest first."""
    rows = session.scalars(select(RatingTable).where(RatingTable.sha256 == sha256).order_by(RatingTable.id))
    return tuple(Rating(row.stars, row.rater, row.why or "", row.rated_at, row.withdrawn_at) for row in rows)


def mean_stars(session: Session, dataset_id: int) -> dict[int, float]:
    """Compute the mean rating of each rated image of a dataset, by member id; withdrawn ratings do not count."""
    statement = (
        select(MemberTable.id, func.avg(RatingTable.stars))
        .join(ImageTable, ImageTable.id == MemberTable.image_id)
        .join(RatingTable, RatingTable.sha256 == ImageTable.sha256)
        .where(RatingTable.withdrawn_at.is_(None), MemberTable.dataset_id == dataset_id)
        .group_by(MemberTable.id)
    )
    return {member_id: float(mean) for member_id, mean in session.execute(statement)}


def liked_generations(session: Session, min_stars: float, model_version: str | None = None) -> list[RatedGeneration]:
    """List generations with a mean rating of at least `min_stars`, in the order of generation."""
    mean = func.avg(RatingTable.stars)
    statement = (
        select(GenerationTable.id, GenerationTable.sha256, GenerationTable.prompt, GenerationTable.model_version, mean)
        .join(RatingTable, RatingTable.sha256 == GenerationTable.sha256)
        .where(RatingTable.withdrawn_at.is_(None))
        .group_by(GenerationTable.id)
        .having(mean >= min_stars)
        .order_by(GenerationTable.id)
    )
    if model_version is not None:
        statement = statement.where(GenerationTable.model_version == model_version)
    return [
        RatedGeneration(generation_id, sha256, prompt, version, float(stars))
        for generation_id, sha256, prompt, version, stars in session.execute(statement)
    ]


def _find_rateable(session: Session, prefix: str) -> str:
    """Find the full SHA-256 of the collected or generated image that starts with the digits, unless it was purged."""
    sha256 = find_sha256(session, prefix)
    purged = purged_reasons(session, [sha256])
    if purged:
        raise DataError(f"Image {sha256[:12]} was {purged[sha256]}. It cannot be rated.")
    return sha256
