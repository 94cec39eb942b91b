"""Scores of unsafe content by a classifier, recorded under the digest of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image
from sqlalchemy import exists, select

from sdlora.core.errors import DataError
from sdlora.core.progress import OnProgress
from sdlora.data.checks.unsafe import SCORE, score_key
from sdlora.data.config import DataConfig
from sdlora.data.decoding.decode import decode_rgb
from sdlora.data.image_models.loading import load_parts, model_folder, usual_device
from sdlora.store.bulk import chunks, insert_or_update
from sdlora.store.image_store import ImageStore
from sdlora.store.tables.datasets import MemberTable
from sdlora.store.tables.images import DecodingTable, ImageTable, ScoreTable

_SETTING = "unsafe_model"
_IMAGES_PER_BATCH = 16


def score_unsafe(
    store: ImageStore, member_ids: Sequence[int], config: DataConfig, on_progress: OnProgress | None = None
) -> int:
    """Score the decodable images among these members without a score of this model; return their number.

    Does nothing if the setting `unsafe_model` is empty.

    Raises:
        DataError: the model does not exist, or lacks one of `unsafe_labels`.
        WeightsError: the model is damaged or of another kind.
    """
    if not config.unsafe_model:
        return 0
    key = score_key(config)
    unscored = [row for chunk in chunks(member_ids) for row in _without_score(store, chunk, key, config.background)]
    if not unscored:
        return 0
    classifier = Classifier(config)
    for done in range(0, len(unscored), _IMAGES_PER_BATCH):
        batch = unscored[done : done + _IMAGES_PER_BATCH]
        images = [decode_rgb(store.read_bytes(sha256), config.background) for _, sha256 in batch]
        rows = [
            {
                "decoding_id": decoding_id,
                "name": SCORE,
                "version": 1,
                "parameters": key,
                "score": score,
            }
            for (decoding_id, _), score in zip(batch, classifier.scores(images), strict=True)
        ]
        with store.write() as session:
            insert_or_update(session, ScoreTable, rows, keys=("decoding_id", "name", "version", "parameters"))
        if on_progress:
            on_progress("look for unsafe content", done + len(batch), len(unscored))
    return len(unscored)


class Classifier:
    """Image classifier and the labels that count as unsafe."""

    def __init__(self, config: DataConfig) -> None:
        folder = model_folder(config.unsafe_model, _SETTING)
        parts = load_parts(folder, _SETTING, ("AutoImageProcessor", "AutoModelForImageClassification"))
        self._processor: Any = parts[0]
        self._device = usual_device()
        self._model: Any = parts[1].eval().to(self._device)
        column_of = {str(label).casefold(): index for index, label in self._model.config.id2label.items()}
        unsafe_labels = [label.casefold() for label in config.unsafe_labels]
        if missing := [label for label in unsafe_labels if label not in column_of]:
            raise DataError(
                f"data.unsafe_labels: {folder} has no label {', '.join(missing)}; "
                f"it has {', '.join(sorted(column_of))}."
            )
        self._columns = [column_of[label] for label in unsafe_labels]

    def scores(self, images: Sequence[Image.Image]) -> list[float]:
        """Return the total probability of the unsafe labels for each RGB image."""
        import torch

        pixels = self._processor(images=list(images), return_tensors="pt")["pixel_values"].to(self._device)
        with torch.inference_mode():
            probabilities = self._model(pixel_values=pixels).logits.float().softmax(dim=-1)  # (B, labels)
        summed: list[float] = probabilities[:, self._columns].sum(dim=1).tolist()
        return summed


def _without_score(store: ImageStore, member_ids: Sequence[int], key: str, background: str) -> list[tuple[int, str]]:
    """Return (decoding id, SHA-256) of the images with a fingerprint and no score under this key."""
    scored = exists().where(
        ScoreTable.decoding_id == DecodingTable.id, ScoreTable.name == SCORE, ScoreTable.parameters == key
    )
    statement = (
        select(DecodingTable.id, ImageTable.sha256)
        .join(ImageTable, ImageTable.id == DecodingTable.image_id)
        .join(MemberTable, MemberTable.image_id == ImageTable.id)
        .where(MemberTable.id.in_(member_ids), MemberTable.removed_at.is_(None))
        .where(DecodingTable.background.in_(("", background)), DecodingTable.fingerprint_id.is_not(None), ~scored)
        .order_by(MemberTable.id)
    )
    with store.read() as session:
        return [(decoding_id, sha256) for decoding_id, sha256 in session.execute(statement)]
