"""Image weights: relative frequency in an epoch, from folder repeats and ratings."""

from __future__ import annotations

import math
from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.orm import Session

from sdlora.data.config import WeightSource
from sdlora.store.ratings import mean_stars
from sdlora.store.tables.datasets import FileTable, SourceTable

NEUTRAL_STARS = 3
"""Rating with the same weight as no rating."""


def image_weights(session: Session, dataset_id: int, weight_by: Collection[WeightSource]) -> dict[int, float]:
    """Return weights of a dataset's images by member id; missing images weigh 1.

    The repeats (`10_name/x.png`: 10) come from the newest file that has any, so that a renamed folder counts.
    """
    weights: dict[int, float] = {}
    if "repeats" in weight_by:
        repeated = (
            select(FileTable.member_id, FileTable.repeats)
            .join(SourceTable, SourceTable.id == FileTable.source_id)
            .where(SourceTable.dataset_id == dataset_id, FileTable.repeats.is_not(None))
        )
        weights |= {
            member_id: float(repeats or 1) for member_id, repeats in session.execute(repeated.order_by(FileTable.id))
        }
    if "ratings" in weight_by:
        for member_id, stars in mean_stars(session, dataset_id).items():
            weights[member_id] = weights.get(member_id, 1.0) * weight_of_stars(stars)
    return {member_id: weight for member_id, weight in weights.items() if weight != 1}


def weight_of_stars(stars: float) -> float:
    """Return the factor of a rating: each star above three doubles the weight, each below halves it.

    So 1 to 5 stars give 1/4, 1/2, 1, 2, 4. Five stars equal four copies of an image, and one star still shows it;
    `sdlora images reject` leaves it out. The factors are powers of two, because these are exact in any arithmetic.

    Args:
        stars: mean over all people, 1 to 5, rounded to whole stars; halves round towards three.
    """
    distance = stars - NEUTRAL_STARS
    exponent = math.ceil(abs(distance) - 0.5)
    return math.ldexp(1.0, exponent if distance > 0 else -exponent)
