"""Images drawn by a model version, with everything needed to draw them again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from sdlora.store.tables.ratings import GenerationTable, RatingTable


@dataclass(frozen=True)
class Generation:
    """Image drawn by a model version. Equal images of several versions are several generations of one SHA-256.

    Attributes:
        sha256: digest of the PNG file.
        stars: mean of people's ratings, 1 to 5; None without a rating.
    """

    sha256: str
    model_version: str
    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    guidance_scale: float
    generated_at: datetime
    stars: float | None


def list_generations(session: Session, limit: int | None = None) -> tuple[Generation, ...]:
    """List drawn images, the newest first."""
    return _generations(session, _with_stars().order_by(GenerationTable.id.desc()).limit(limit))


def generations_of(session: Session, sha256: str) -> tuple[Generation, ...]:
    """List the generations of one image by its full SHA-256, the oldest first."""
    return _generations(session, _with_stars().where(GenerationTable.sha256 == sha256).order_by(GenerationTable.id))


def count_generations(session: Session) -> int:
    """Count the generations of all versions."""
    return session.scalar(select(func.count()).select_from(GenerationTable)) or 0


def _with_stars() -> Select[Any]:
    stars = (
        select(func.avg(RatingTable.stars))
        .where(RatingTable.sha256 == GenerationTable.sha256, RatingTable.withdrawn_at.is_(None))
        .scalar_subquery()
    )
    return select(GenerationTable, stars)


def _generations(session: Session, statement: Select[Any]) -> tuple[Generation, ...]:
    return tuple(
        Generation(
            sha256=row.sha256,
            model_version=row.model_version,
            prompt=row.prompt,
            negative_prompt=row.negative_prompt,
            seed=row.seed,
            steps=row.steps,
            guidance_scale=row.guidance_scale,
            generated_at=row.generated_at,
            stars=None if stars is None else float(stars),
        )
        for row, stars in session.execute(statement)
    )
