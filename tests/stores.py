"""Stores for tests: the folder of one machine, and the servers of several. Import `store` into a conftest."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sdlora.store.dataset import Dataset
from sdlora.store.image_store import ImageStore
from sdlora.store.location import StoreLocation
from tests.servers import migrated, new_database, new_folder, postgres, s3

__all__ = ["dataset", "empty_database", "location", "migrated", "on_servers", "postgres", "s3", "store"]

DATASET = "icons"
FOLDER, SERVERS = "sqlite and a folder", "postgresql and s3"


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrated once: each test starts from a copy."""
    home = tmp_path_factory.mktemp("empty")
    ImageStore.open(home).close()
    return home / "images.db"


@pytest.fixture(scope="session")
def on_servers(request: pytest.FixtureRequest) -> Callable[[], StoreLocation]:
    """Makes locations on both servers, which are started when the first one is asked for."""

    def make() -> StoreLocation:
        server, template, bucket = (request.getfixturevalue(name) for name in ("postgres", "migrated", "s3"))
        return StoreLocation(new_database(server, template), new_folder(bucket))

    return make


@pytest.fixture
def location(request: pytest.FixtureRequest, tmp_path: Path, empty_database: Path) -> StoreLocation:
    """Where the test's store lies; a test module that runs on servers too says so with `both_places`."""
    home = tmp_path / "home"
    home.mkdir()
    if getattr(request, "param", FOLDER) == SERVERS:
        return request.getfixturevalue("on_servers")()
    shutil.copy(empty_database, home)
    return StoreLocation.of_home(home)


@pytest.fixture
def store(tmp_path: Path, location: StoreLocation) -> Iterator[ImageStore]:
    with ImageStore.open(tmp_path / "home", location) as opened:
        yield opened


@pytest.fixture
def dataset(store: ImageStore) -> Dataset:
    return store.dataset(DATASET)


@contextmanager
def opened_dataset(home: Path, location: StoreLocation | None = None) -> Iterator[Dataset]:
    """Open the store of a folder for the dataset that most tests are about."""
    with ImageStore.open(home, location) as opened:
        yield opened.dataset(DATASET)


both_places = pytest.mark.parametrize("location", [FOLDER, SERVERS], indirect=True)
"""Marks tests that hold for every place a store can lie in."""

servers_when_patient = pytest.mark.parametrize(
    "location", [FOLDER, pytest.param(SERVERS, marks=pytest.mark.slow)], indirect=True
)
"""The same where there are many of them: on servers they run with `make test-all`."""


def lose_all_bytes(dataset: Dataset) -> None:
    """Remove what lies in the store's folder or bucket: whoever looks at an image now fails."""
    for image in dataset.images():
        dataset.store.blobs.remove(image.sha256)
