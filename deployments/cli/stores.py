"""Image database of a state folder, opened for a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdlora.store.image_store import ImageStore


@contextmanager
def existing_store(home: Path) -> Iterator[ImageStore]:
    """Open the store of `home`; a misspelt folder creates no store.

    Raises:
        DataError: no image was collected there.
    """
    from sdlora.core.errors import DataError
    from sdlora.store.image_store import ImageStore

    if not has_store(home):
        raise DataError(f"No images yet in {home}. Collect some: sdlora collect FOLDER")
    with ImageStore.open(home) as store:
        yield store


def has_store(home: Path) -> bool:
    """Return True if images may exist. A database server that the environment names counts as yes, unasked."""
    from sdlora.store.location import StoreLocation

    return StoreLocation.of_home(home).may_hold_images
