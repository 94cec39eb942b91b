from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdlora.core.refs import BaseModelRef
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from tests.tiny import tiny_base_model


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base_model(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def base(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> BaseModelRef:
    return load_base_model(BaseModelConfig(source=str(base_folder)), tmp_path_factory.mktemp("home"))


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """What the tiny base's denoiser is given: latents, timesteps, text."""
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(2, 4, 16, 16, generator=generator),
        torch.tensor([10, 900]),
        torch.randn(2, 32, 16, generator=generator),
    )
