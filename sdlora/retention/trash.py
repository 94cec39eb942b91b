"""Deletion of files and folders that a kill cannot leave half done.

A folder is first moved out of its place, in one step, and then deleted. What a kill leaves is in `trash/` of the state
folder, which nothing reads, and the next deletion empties it.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from sdlora.core.errors import StorageError
from sdlora.core.files import flush, make_private_folder, remove

FOLDER = "trash"


def empty_trash(home: Path) -> None:
    """Delete what an earlier process moved to the trash."""
    for path in sorted((home / FOLDER).glob("*")):
        remove(path)


def remove_whole(home: Path, path: Path) -> None:
    """Delete a file or folder below the state folder; one that is gone already is no error.

    Raises:
        StorageError: it cannot be moved.
    """
    try:
        trashed = make_private_folder(home / FOLDER) / uuid.uuid4().hex
        path.rename(trashed)
        flush(path.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"{path} cannot be removed: {error}. Change its rights, and repeat.") from error
    remove(trashed)


def replace_by_link(path: Path, source: Path) -> bool:
    """Make a file a second name of another one with equal bytes.

    Returns:
        False if the bytes differ, or if the file system has no hard links; then nothing is changed.
    """
    if path.read_bytes() != source.read_bytes():
        return False
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    remove(partial)
    try:
        os.link(source, partial)
        partial.replace(path)
    except OSError:
        remove(partial)
        return False
    flush(path.parent)
    return True
