from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdlora.store import ImageStore


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrated once: each test starts from a copy."""
    home = tmp_path_factory.mktemp("empty")
    ImageStore.open(home).close()
    return home / "images.db"


@pytest.fixture
def store(tmp_path: Path, empty_database: Path) -> Iterator[ImageStore]:
    (tmp_path / "home").mkdir()
    shutil.copy(empty_database, tmp_path / "home")
    with ImageStore.open(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "pictures"
    path.mkdir()
    return path
