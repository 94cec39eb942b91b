"""Images as typed: the first digits of an id, or the path of a file with the same bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdlora.store.image_store import ImageStore

_DIGITS = re.compile(r"[0-9a-fA-F]{1,64}")


def image_ids(store: ImageStore, texts: Iterable[str]) -> list[str]:
    """Return the SHA-256 of each image; a wrong text is found before anything is done to the other images."""
    return [image_id(store, text) for text in texts]


def image_id(store: ImageStore, text: str) -> str:
    """Return the full SHA-256 of a collected or drawn image.

    Args:
        text: the first digits, or the path of a file. A file whose name looks like digits needs a folder: `./abc`.

    Raises:
        DataError: no such image, several, no such file, or a file that was neither collected nor drawn.
    """
    from sdlora.core.errors import DataError
    from sdlora.core.files import file_sha256

    if _DIGITS.fullmatch(text):
        return store.find(text)
    path = Path(text)
    if not _is_file(path):
        raise DataError(
            f"Image {text!r}: expected the first digits of an image's SHA-256, or the path of a file. "
            "`sdlora images` lists the images."
        )
    sha256 = file_sha256(path)
    try:
        return store.find(sha256)
    except DataError as error:
        raise DataError(
            f"{path} (SHA-256 {sha256[:10]}) is in {store.home} neither as a collected nor as a drawn image. Collect "
            f"it with its folder: sdlora collect {path.parent}"
        ) from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long for a file, or with a NUL
        return False
