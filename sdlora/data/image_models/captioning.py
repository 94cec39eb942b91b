"""Automatic captions by a model. Captions of a person or a source take precedence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image
from sqlalchemy import or_, select
from sqlalchemy.orm import aliased

from sdlora.core.errors import DataError
from sdlora.core.progress import OnProgress
from sdlora.data.config import DataConfig
from sdlora.data.decoding.decode import decode_rgb
from sdlora.data.image_models.loading import load_parts, model_digest, model_folder, usual_device
from sdlora.store.bulk import chunks
from sdlora.store.captions import replace_captions
from sdlora.store.dataset import Dataset
from sdlora.store.ids import member_ids
from sdlora.store.intake import register_source
from sdlora.store.records import Caption
from sdlora.store.tables.datasets import CaptionTable, MemberTable
from sdlora.store.tables.images import ImageTable

_SETTING = "caption_model"
_IMAGES_PER_BATCH = 8
_MAX_TOKENS = 40


def write_captions(dataset: Dataset, config: DataConfig, on_progress: OnProgress | None = None) -> dict[str, str]:
    """Caption every accepted image that has no caption, or only its file name; return captions by SHA-256.

    A killed run keeps its recorded captions, and the next run continues from there.

    Raises:
        DataError: the model does not exist, or the setting is empty.
        WeightsError: the model is damaged or of another kind.
    """
    if not config.caption_model:
        raise DataError(
            "data.caption_model is not set. Name a folder with an image-to-text model, or owner/name@commit."
        )
    folder = model_folder(config.caption_model, _SETTING)
    store = dataset.store
    uncaptioned = _uncaptioned(dataset)
    written: dict[str, str] = {}
    if not uncaptioned:
        return written
    captioner = Captioner(config)
    for batch in chunks(uncaptioned, _IMAGES_PER_BATCH):
        texts = captioner.captions([decode_rgb(store.read_bytes(sha256), config.background) for sha256 in batch])
        captions = {sha256: text for sha256, text in zip(batch, texts, strict=True) if text}
        with store.write() as session:
            source_id = register_source(session, dataset.id, f"model {model_digest(folder)}", f"model {folder.name}")
            ids = member_ids(session, dataset.id, list(captions))
            replace_captions(
                session, source_id, {ids[sha256]: [Caption(text, "automatic")] for sha256, text in captions.items()}
            )
        written |= captions
        if on_progress:
            on_progress("write captions", len(written), len(uncaptioned))
    return written


class Captioner:
    """Image-to-text model of transformers, such as BLIP, GIT, or a vision encoder with a text decoder."""

    def __init__(self, config: DataConfig) -> None:
        folder = model_folder(config.caption_model, _SETTING)
        names = ("AutoImageProcessor", "AutoTokenizer", "AutoModelForImageTextToText")
        parts = load_parts(folder, _SETTING, names)
        self._processor: Any = parts[0]
        self._tokenizer: Any = parts[1]
        self._device = usual_device()
        self._model: Any = parts[2].eval().to(self._device)

    def captions(self, images: Sequence[Image.Image]) -> list[str]:
        """Generate one line of text per RGB image by greedy search; empty if the model generates nothing."""
        import torch

        pixels = self._processor(images=list(images), return_tensors="pt")["pixel_values"].to(self._device)
        with torch.inference_mode():
            tokens = self._model.generate(pixel_values=pixels, max_new_tokens=_MAX_TOKENS, do_sample=False)
        texts: list[str] = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]


def _uncaptioned(dataset: Dataset) -> list[str]:
    captioned = select(CaptionTable.member_id).where(CaptionTable.origin != "file_name")
    copies = aliased(MemberTable)
    by_copies = select(copies.copy_of_id).where(copies.id.in_(captioned), copies.copy_of_id.is_not(None))
    is_captioned = or_(MemberTable.id.in_(captioned), MemberTable.id.in_(by_copies))
    statement = (
        select(ImageTable.sha256)
        .join(MemberTable, MemberTable.image_id == ImageTable.id)
        .where(MemberTable.dataset_id == dataset.id, MemberTable.verdict == "accepted", ~is_captioned)
    )
    with dataset.store.read() as session:
        return list(session.scalars(statement.order_by(MemberTable.id)))
