from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sdlora.core.refs import BaseModelRef
from sdlora.data.snapshot import Snapshot
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.store.image_store import ImageStore
from tests.tiny import tiny_base_model
from tests.unit.training.setting import fill_store, on_one_thread


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The order of sums is part of a result's bytes."""
    with on_one_thread():
        yield


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelRef:
    folder = tiny_base_model(tmp_path_factory.mktemp("base") / "tiny")
    return load_base_model(BaseModelConfig(source=str(folder)), tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ImageStore, Snapshot]]:
    """A store of ten images, seven to train on, kept for all tests: the caches fill up once."""
    home = tmp_path_factory.mktemp("filled")
    with ImageStore.open(home / "home") as store:
        yield store, fill_store(store, home / "images")


@pytest.fixture
def store(filled: tuple[ImageStore, Snapshot]) -> ImageStore:
    return filled[0]


@pytest.fixture
def snapshot(filled: tuple[ImageStore, Snapshot]) -> Snapshot:
    return filled[1]


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return tmp_path / "run"
