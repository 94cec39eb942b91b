"""Settings with nothing left empty, as for the embedded base: what the library's functions take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdlora.config import PipelineConfig
from sdlora.lora.config import LoraConfig, ResolvedLora
from sdlora.training.config import ResolvedTraining, TrainingConfig
from sdlora.training.defaults import BaseTraits, fill_training
from tasks.form import STYLE


def filled_lora(**settings: Any) -> ResolvedLora:
    return LoraConfig.model_validate(settings).filled()


def filled_training(**settings: Any) -> ResolvedTraining:
    config = TrainingConfig.model_validate(settings)
    return fill_training(config, BaseTraits("sd1", native_resolution_px=64), precision="fp32")


def run_flow(flow: Any, config: PipelineConfig, home: Path, **parameters: Any) -> Any:
    """Call a flow with what the configuration says, as the command line does."""
    return flow(**STYLE.parameters(config), home=home, **parameters)
