"""Trained text encoders: captions are embedded in every step, with gradients, instead of once before the loop."""

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
    """Text encoders of a base model, each with an adapter attached.

    The encoders compute in fp32, as they do in inference, and stay in evaluation mode: their adapters have no dropout.

    Attributes:
        family: turns the outputs into conditioning.
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
        """Tensors of the adapters, by encoder folder and name."""
        return {
            f"{folder}.{name}": parameter
            for folder, encoder in self.encoders.items()
            for name, parameter in adapter_parameters(encoder).items()
        }

    def conditioning(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the conditioning of the denoiser, (B, ...) each.

        Args:
            batch: token ids by encoder folder, (B, T) each, and the images' own conditioning.
        """
        outputs = {
            part.folder: part.outputs(self.encoders[part.folder], batch[part.folder]) for part in self.family.text_parts
        }
        image_conditioning = {name: tensor for name, tensor in batch.items() if name not in self.encoders}
        return self.family.conditioning(outputs) | image_conditioning


def caption_tokens(base: BaseModelRef, captions: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """Tokenise captions: (T,) token ids by caption and encoder folder."""
    family = family_of(base.folder)
    ids = {part.folder: part.token_ids(parts.load_tokenizer(base, part), captions) for part in family.text_parts}
    return {caption: {folder: ids[folder][row] for folder in ids} for row, caption in enumerate(captions)}
