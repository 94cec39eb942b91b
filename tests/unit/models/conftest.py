from __future__ import annotations

from pathlib import Path

import pytest

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
