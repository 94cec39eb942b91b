"""The size of an adapter and the layers it changes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sdlora.frozen import FrozenConfig

Targets = Literal["attention", "attention+ff", "all"]

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
_CONVOLUTIONS = ("proj_in", "proj_out", "conv1", "conv2", "conv_shortcut", "time_emb_proj")
TARGET_MODULES: dict[Targets, tuple[str, ...]] = {
    "attention": _ATTENTION,
    "attention+ff": _ATTENTION + _FEED_FORWARD,
    "all": _ATTENTION + _FEED_FORWARD + _CONVOLUTIONS,
}


class LoraConfig(FrozenConfig):
    """A low-rank update W' = W + (alpha / rank) B A of chosen layers."""

    rank: int = Field(16, ge=1, description="inner dimension r of the update B A")
    alpha: float = Field(
        # alpha = rank: the scale is 1 at any rank, so a learning rate found at one rank holds at another.
        default_factory=lambda values: float(values["rank"]),
        gt=0,
        description="the update is scaled by alpha / rank; empty: the rank, a scale of 1",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="share of a layer's inputs hidden from the update in training")
    targets: Targets = Field(
        "all", description="which layers: attention, attention+ff (feed-forward), all (convolutions too)"
    )
    target_modules: tuple[str, ...] = Field(
        default_factory=lambda values: TARGET_MODULES[values["targets"]],
        min_length=1,
        description="ends of the layers' names; empty: those of `targets`",
    )

    @property
    def scaling(self) -> float:
        return self.alpha / self.rank
