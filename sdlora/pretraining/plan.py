"""The configuration file of `sdlora pretrain`."""

from __future__ import annotations

from pydantic import Field

from sdlora.core.config_base import FrozenConfig
from sdlora.data.config import DataConfig
from sdlora.pretraining.config import PretrainConfig


class PretrainData(DataConfig):
    """As for an adapter, but with fewer images held out: a base model needs all that there is."""

    held_out_fraction: float = Field(0.05, gt=0, lt=1, description="share of new images kept from training")


class PretrainPlan(FrozenConfig):
    """Which images to learn from, what to make of them, and with how many processes."""

    name: str = Field("base", pattern=r"^[a-z0-9][a-z0-9-]*$", description="name of the base model and its experiment")
    data: PretrainData = PretrainData()
    model: PretrainConfig = PretrainConfig()
    processes: int = Field(1, ge=1, description="processes that share each batch; on CPUs one per core is steadiest")
