"""What people think of generated images."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from sdlora.errors import DataError
from sdlora.store.tables import GenerationTable, RatingTable

MIN_STARS, MAX_STARS = 1, 5


@dataclass(frozen=True)
class RatedGeneration:
    """A generated image with the mean of its ratings."""

    id: int
    sha256: str
    prompt: str
    model_version: str
    mean_stars: float


def rate(session: Session, sha256: str, stars: int, rater: str) -> None:
    """Let this be the rater's only word on every generation of these bytes. `session` holds the write lock.

    Raises:
        DataError: the stars are not 1 to 5, or no model drew these bytes.
    """
    if not MIN_STARS <= stars <= MAX_STARS:
        raise DataError(f"stars = {stars}: expected {MIN_STARS} to {MAX_STARS}.")
    ids = session.scalars(select(GenerationTable.id).where(GenerationTable.sha256 == sha256)).all()
    if not ids:
        raise DataError(f"No generated image has the SHA-256 {sha256!r}; only those can be rated.")
    session.execute(delete(RatingTable).where(RatingTable.generation_id.in_(ids), RatingTable.rater == rater))
    session.add_all(RatingTable(generation_id=generation_id, rater=rater, stars=stars) for generation_id in ids)


def liked_generations(session: Session, min_stars: float, model_version: str | None = None) -> list[RatedGeneration]:
    """Generations whose mean rating is at least so many stars, in the order they were drawn."""
    mean = func.avg(RatingTable.stars)
    statement = (
        select(GenerationTable.id, GenerationTable.sha256, GenerationTable.prompt, GenerationTable.model_version, mean)
        .join(RatingTable, RatingTable.generation_id == GenerationTable.id)
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
