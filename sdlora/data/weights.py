"""How often an epoch shows an image beside the others: what its folder asks for, times what people think of it."""

from __future__ import annotations

import math
from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.orm import Session

from sdlora.data.config import WeightSource
from sdlora.store.ratings import mean_stars
from sdlora.store.tables import FileTable

NEUTRAL_STARS = 3
"""An image with as many stars counts like one that nobody rated."""


def image_weights(session: Session, weight_by: Collection[WeightSource]) -> dict[int, float]:
    """Weights by image id; images that are left out weigh 1.

    Repeats are those of the newest file that says any (`10_name/x.png`: 10), so that a renamed folder counts.
    """
    weights: dict[int, float] = {}
    if "repeats" in weight_by:
        repeated = select(FileTable.image_id, FileTable.repeats).where(FileTable.repeats.is_not(None))
        weights |= {
            image_id: float(repeats or 1) for image_id, repeats in session.execute(repeated.order_by(FileTable.id))
        }
    if "ratings" in weight_by:
        for image_id, stars in mean_stars(session).items():
            weights[image_id] = weights.get(image_id, 1.0) * weight_of_stars(stars)
    return {image_id: weight for image_id, weight in weights.items() if weight != 1}


def weight_of_stars(stars: float) -> float:
    """What a rating multiplies an image's weight by: each star above three doubles it, each below halves it.

    So 1 to 5 stars give 1/4, 1/2, 1, 2, 4: five stars show an image as often as four copies of it would, and one star
    still shows it; to leave it out is `sdlora images reject`. Powers of two, because they are exact in any arithmetic.

    Args:
        stars: mean of all people's stars, 1 to 5; halfway between two stars the one nearer to three counts.
    """
    distance = stars - NEUTRAL_STARS
    exponent = math.ceil(abs(distance) - 0.5)
    return math.ldexp(1.0, exponent if distance > 0 else -exponent)
