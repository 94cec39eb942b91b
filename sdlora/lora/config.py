"""Settings of an adapter: method, rank, scale, and the layers that it changes."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from sdlora.core.config_base import SettingsSection
from sdlora.models.families.layouts import Targets

MAX_RANK = 16_384
"""Upper bound of ranks, above the width of any layer of the known families."""

Method = Literal["lora", "rslora", "dora", "loha", "lokr", "pissa"]

_WITHOUT_DROPOUT: dict[Method, str] = {
    "loha": "peft has no dropout of the inputs of a LoHa",
    "lokr": "peft has no dropout of the inputs of a LoKr",
    "pissa": "PiSSA starts with the most important part of each weight in the adapter, which dropout would hide",
}


class LoraConfig(SettingsSection):
    """Settings of an update W' = W + (alpha / rank) B A of chosen layers, or of another small update.

    `filled` replaces every None by the value that suits the base model.
    """

    method: Method = Field(
        "lora",
        description="lora; rslora (scale alpha / sqrt(rank)); dora (lengths of the weight's rows learn, too); "
        "loha, lokr (products of small matrices); pissa (starts with the weight's largest singular values)",
    )
    rank: int | None = Field(
        None,
        ge=1,
        le=MAX_RANK,
        description="inner dimension r of the update B A; empty: 16, or what suits the base's family, 32 for XL",
    )
    alpha: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="the update is scaled by alpha / rank; empty: the rank, a scale of 1",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="share of a layer's inputs hidden from the update in training")
    targets: Targets | None = Field(
        None,
        description="which layers: attention, attention+ff (feed-forward), all (convolutions too); "
        "empty: all that the method can change",
    )
    target_modules: tuple[str, ...] = Field(
        (),
        description="ends of the layers' names; empty: the layers of `targets` in the base's family",
    )
    text_encoder_rank: int | None = Field(
        None,
        ge=1,
        le=MAX_RANK,
        description="rank of an additional LoRA of the text encoders' attention; null: they stay unchanged",
    )

    @model_validator(mode="after")
    def _dropout_suits_method(self) -> LoraConfig:
        if self.dropout and self.method in _WITHOUT_DROPOUT:
            raise ValueError(
                f"dropout: {self.dropout:g} cannot be used with method {self.method}: {_WITHOUT_DROPOUT[self.method]}. "
                "Set dropout to 0 or choose another method"
            )
        return self

    def filled(self, rank: int = 16) -> ResolvedLora:
        """Fill every empty setting.

        Args:
            rank: rank that suits the base model; 16 for most families.
        """
        rank = rank if self.rank is None else self.rank
        defaults: dict[str, Any] = {
            "rank": rank,
            # alpha = rank gives a scale of 1 at any rank, so a learning rate found at one rank holds at another.
            "alpha": float(rank),
            # peft splits no convolution for PiSSA.
            "targets": "attention+ff" if self.method == "pissa" else "all",
        }
        set_values = {name: value for name, value in self if value is not None}
        return ResolvedLora.model_validate(defaults | set_values)


class ResolvedLora(LoraConfig):
    """Settings of an adapter without empty values."""

    rank: int
    alpha: float
    targets: Targets

    @property
    def scaling(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.method == "rslora" else self.rank)

    def for_text(self) -> ResolvedLora | None:
        """Return the settings of the text encoders' adapter, a plain LoRA; None if they stay unchanged."""
        if self.text_encoder_rank is None:
            return None
        return LoraConfig(rank=self.text_encoder_rank).filled()

    def as_saved(self) -> ResolvedLora:
        """Return the settings of the saved file: PiSSA is a LoRA of twice the rank, rsLoRA one of another alpha."""
        if self.method == "pissa":
            return self.model_copy(update={"method": "lora", "rank": 2 * self.rank, "alpha": 2 * self.alpha})
        if self.method == "rslora":
            return self.model_copy(update={"method": "lora", "alpha": self.scaling * self.rank})
        return self
