"""Settings with nothing left empty, as for the embedded base: what the library's functions take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from deployments.styles.files import style_file
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


def make_style(home: Path, name: str, images: Path, **sections: Any) -> Path:
    """Write the file of a style into a state folder; return its path."""
    file = style_file(home, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    settings = {"name": name, **sections}
    settings["data"] = {"sources": [str(images)], **settings.get("data", {})}
    file.write_text(yaml.safe_dump(settings))
    return file


def run_flow(flow: Any, config: PipelineConfig, home: Path, **parameters: Any) -> Any:
    """Call a flow with what the configuration says, as the command line does."""
    return flow(**STYLE.parameters(config), home=home, **parameters)
