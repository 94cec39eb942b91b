"""Opening the image database for a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdlora.store.image_store import ImageStore


@contextmanager
def existing_store(home: Path) -> Iterator[ImageStore]:
    """The store of `home`; a misspelt folder makes no new one.

    Raises:
        DataError: nothing was ever collected there.
    """
    from sdlora.core.errors import DataError
    from sdlora.store.image_store import ImageStore

    if not has_store(home):
        raise DataError(f"No images yet in {home}. Collect some: sdlora collect FOLDER")
    with ImageStore.open(home) as store:
        yield store


def has_store(home: Path) -> bool:
    """Whether images may have been collected; a server that the environment names is believed."""
    from sdlora.store.location import StoreLocation

    return StoreLocation.of_home(home).may_hold_images
