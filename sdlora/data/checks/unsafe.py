"""Unsafe content check by a classifier, off until a model is set."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from sdlora.data.checks.base import Findings, RecordCheck, parameters_digest
from sdlora.data.config import DataConfig
from sdlora.data.image_models.loading import model_digest, model_folder
from sdlora.store.tables.datasets import MemberTable
from sdlora.store.tables.images import DecodingTable, ScoreTable

SCORE = "unsafe_score"
"""Name under which the score of a model is recorded, independent of the threshold; see `image_models.unsafe_scores`."""


def unsafe_probability(session: Session, member_ids: Sequence[int], config: DataConfig) -> Findings:
    """Probability, by the model of unsafe_model, of one of unsafe_labels."""
    if not config.unsafe_model:
        return {}
    statement = (
        select(MemberTable.id, ScoreTable.score)
        .join(DecodingTable, DecodingTable.image_id == MemberTable.image_id)
        .join(ScoreTable, ScoreTable.decoding_id == DecodingTable.id)
        .where(ScoreTable.name == SCORE, ScoreTable.parameters == score_key(config))
        .where(MemberTable.id.in_(member_ids), DecodingTable.background.in_(("", config.background)))
    )
    return {member_id: (score, _reason(score, config)) for member_id, score in session.execute(statement)}


def score_key(config: DataConfig) -> str:
    """Return the digest of what the score of a decoding depends on: model files and unsafe labels."""
    folder = model_folder(config.unsafe_model, "unsafe_model")
    labels = sorted(label.casefold() for label in config.unsafe_labels)
    return parameters_digest({"model": model_digest(folder), "labels": labels})


def _reason(score: float, config: DataConfig) -> str | None:
    if score < config.unsafe_threshold:
        return None
    return (
        f"unsafe content ({', '.join(config.unsafe_labels)}) with probability {score:.2f}, at least "
        f"unsafe_threshold = {config.unsafe_threshold:g}"
    )


UNSAFE = RecordCheck(
    "unsafe",
    1,
    unsafe_probability,
    ("unsafe_model", "unsafe_labels", "unsafe_threshold"),
    depends_on=lambda config: score_key(config) if config.unsafe_model else "",
)
