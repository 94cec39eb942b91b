"""Text encoders that learn: captions become embeddings in the loop, with gradients, instead of once before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sdlora.core.refs import BaseModelRef
from sdlora.lora.attach import adapter_parameters
from sdlora.lora.config import ResolvedLora
from sdlora.lora.text import attach_to_text_encoder
from sdlora.models import parts
from sdlora.models.families import family_of
from sdlora.models.families.base import Family


@dataclass(frozen=True)
class TrainedText:
    """The text encoders of a base, each with an adapter attached.

    They compute in fp32, as when the adapter is used, and are never in training mode: their adapters have no dropout.

    Attributes:
        family: knows how their outputs become conditioning.
        encoders: by folder.
    """

    family: Family
    encoders: Mapping[str, nn.Module]

    @classmethod
    def of_base(cls, base: BaseModelRef, lora: ResolvedLora, seed: int, device: torch.device) -> TrainedText:
        family = family_of(base.folder)
        encoders = {
            part.folder: attach_to_text_encoder(parts.load_text_encoder(base, part, device), part, lora, seed)
            for part in family.text_parts
        }
        return cls(family, encoders)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The adapters' tensors, by encoder folder and name."""
        return {
            f"{folder}.{name}": parameter
            for folder, encoder in self.encoders.items()
            for name, parameter in adapter_parameters(encoder).items()
        }

    def conditioning(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the denoiser is shown, (B, ...) each.

        Args:
            batch: of a batch, token ids by encoder folder, (B, T) each, beside the images' own conditioning.
        """
        outputs = {
            part.folder: part.outputs(self.encoders[part.folder], batch[part.folder]) for part in self.family.text_parts
        }
        image_conditioning = {name: tensor for name, tensor in batch.items() if name not in self.encoders}
        return self.family.conditioning(outputs) | image_conditioning


def caption_tokens(base: BaseModelRef, captions: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """By caption the token ids, (T,) each, by encoder folder."""
    family = family_of(base.folder)
    ids = {part.folder: part.token_ids(parts.load_tokenizer(base, part), captions) for part in family.text_parts}
    return {caption: {folder: ids[folder][row] for folder in ids} for row, caption in enumerate(captions)}
