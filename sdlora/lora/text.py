"""Adapters of text encoders: a plain LoRA of the attention layers, for every method of the denoiser."""

from __future__ import annotations

from typing import Any

from torch import nn

from sdlora.core.errors import TargetModuleError
from sdlora.lora.attach import attach_lora
from sdlora.lora.config import LoraConfig, ResolvedLora
from sdlora.models.families.base import Family, TextPart

_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


def check_text_encoders(family: Family, config: ResolvedLora) -> None:
    """Check before any work that the text encoders can be adapted with the settings.

    Raises:
        TargetModuleError: the family does not support it, or the rank is above an encoder's width.
    """
    rank = config.text_encoder_rank
    if rank is None:
        return
    if not family.adapts_text:
        raise TargetModuleError(
            f"lora.text_encoder_rank: {rank} asks for adapters of the text encoders, which are trained for Stable "
            f"Diffusion 1, 2 and XL only, not for {family.layout.title}, whose prompts T5 reads, too. Set it to null."
        )
    for part in family.text_parts:
        width = family.settings(part.folder)["hidden_size"]
        if rank > width:
            raise TargetModuleError(
                f"lora.text_encoder_rank: {rank} is above the width of {part.folder} ({width}). Set {width} or less; "
                "nothing was trained."
            )


def attach_to_text_encoder(encoder: Any, part: TextPart, config: ResolvedLora, seed: int) -> nn.Module:
    """Attach an adapter that initially changes nothing to a frozen text encoder, in place, without dropout.

    The last layer is left out if no output passes through it.
    """
    assert config.text_encoder_rank is not None
    layers = text_layers(encoder.config.num_hidden_layers, part)
    adapted: nn.Module = attach_lora(
        encoder, LoraConfig(rank=config.text_encoder_rank, target_modules=layers).filled(), seed
    )
    return adapted


def text_layers(count: int, part: TextPart) -> tuple[str, ...]:
    """Return the names of the adapted layers of a text encoder with `count` hidden layers, without the outer name."""
    indices = range(count - (not part.uses_last_layer))
    return tuple(f"encoder.layers.{index}.self_attn.{name}" for index in indices for name in _PROJECTIONS)
