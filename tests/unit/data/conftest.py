from __future__ import annotations

from pathlib import Path

import pytest

from tests.stores import dataset, empty_database, location, migrated, on_servers, postgres, s3, store

__all__ = ["dataset", "empty_database", "folder", "location", "migrated", "on_servers", "postgres", "s3", "store"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "pictures"
    path.mkdir()
    return path
