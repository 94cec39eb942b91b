"""The configuration file of `sdlora pretrain`."""

from __future__ import annotations

from pydantic import Field

from sdlora.data.config import DataConfig
from sdlora.frozen import FrozenConfig
from sdlora.pretraining.config import PretrainConfig


class PretrainPlan(FrozenConfig):
    """Which images to learn from, what to make of them, and with how many processes."""

    name: str = Field("base", pattern=r"^[a-z0-9][a-z0-9-]*$", description="name of the base model and its experiment")
    data: DataConfig = DataConfig(held_out_fraction=0.05)
    model: PretrainConfig = PretrainConfig()
    processes: int = Field(1, ge=1, description="processes that share each batch; on CPUs one per core is steadiest")
