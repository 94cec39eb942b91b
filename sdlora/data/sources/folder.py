"""A folder of images, with all folders in it.

Not by fsspec, as stores elsewhere: a pass without news would take 1.3 times the work (docs/experiments.md).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from sdlora.core.errors import DataError
from sdlora.data.sources.base import Source, SourceContext, UnreadableItemError, address_key, local_path
from sdlora.data.sources.tree import Entry, Listing, is_annotation, is_image, tree_items

WORKERS = 1
"""Threads of one interpreter that do little each wait for its lock longer than for a disk."""


def open_folder(uri: str, context: SourceContext) -> Source | None:
    """A folder by its path.

    Hidden files and folders are passed over; folders are not followed through symbolic links.

    Raises:
        DataError: there is no such folder, it cannot be read, or no image is in it.
    """
    root = local_path(uri)
    if root is None:
        return None
    if not root.is_dir():
        actual = "a file, not a folder" if root.exists() else "nothing there"
        raise DataError(f"data.sources: expected a folder of images at {uri!r}, found {actual}. Correct the path.")
    count, other_count = _count_files(root)
    if not count:
        raise DataError(
            f"data.sources: no image in the folder {uri!r}, found {other_count} other files. Put files such as .png, "
            ".jpg or .webp there, or correct the path."
        )
    unmatched: list[str] = []
    limit = context.config.max_file_bytes
    return Source(
        name=root.resolve().name or "folder",
        key=address_key(str(root.resolve())),
        count=count,
        items=lambda: tree_items(
            _listings(root), lambda entry, size: _read(root, entry, size), limit, unmatched, partial(_find, root)
        ),
        workers=WORKERS,
        unmatched=unmatched,
    )


def _count_files(root: Path) -> tuple[int, int]:
    """Image files and other files in the tree."""
    images = files = 0
    for _, _, entries in _walk(root):
        images += sum(is_image(entry.name) for entry in entries)
        files += len(entries)
    return images, files - images


def _listings(root: Path) -> Iterator[Listing]:
    """One listing per folder, so that a million files are never listed at once."""
    for _, prefix, entries in _walk(root):
        images: list[Entry] = []
        annotations: dict[str, Entry] = {}
        for entry in entries:
            path = prefix + entry.name
            if is_image(entry.name):
                images.append(_entry(path, entry))
            elif is_annotation(entry.name):
                annotations[path] = _entry(path, entry)
        yield Listing(images, annotations)


def _walk(root: Path) -> Iterator[tuple[str, str, list[os.DirEntry[str]]]]:
    """(folder, its path within the root, its files by name), a folder before those in it, in the order of names."""
    pending_folders = [(str(root), "")]
    while pending_folders:
        folder, prefix = pending_folders.pop()
        files, folders = [], []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((entry.path, f"{prefix}{entry.name}/"))
                    elif not (entry.is_symlink() and entry.is_dir()):
                        files.append(entry)
        except OSError as error:
            raise DataError(f"data.sources: {error.filename} cannot be read: {error.strerror}.") from error
        yield folder, prefix, sorted(files, key=lambda entry: entry.name)
        pending_folders += sorted(folders, reverse=True)


def _entry(path: str, entry: os.DirEntry[str]) -> Entry:
    try:
        status = entry.stat()
    except OSError:  # reading it will say why
        return Entry(path, 0, None)
    if not stat.S_ISREG(status.st_mode):
        return Entry(path, 0, None)
    return Entry(path, status.st_size, f"{status.st_size}-{status.st_mtime_ns}")


def _find(root: Path, path: str) -> Entry | None:
    """The file at a path, but none outside the root, nor in a folder that is a link to one outside."""
    file = root / path
    try:
        if not file.parent.resolve().is_relative_to(root.resolve()) or not file.is_file():
            return None
        status = file.stat()
    except (OSError, ValueError):
        return None
    return Entry(path, status.st_size, f"{status.st_size}-{status.st_mtime_ns}")


def _read(root: Path, entry: Entry, size: int) -> bytes:
    path = f"{root}/{entry.path}"  # a Path for every file would take a tenth of the time
    try:
        if entry.stamp is None and not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            raise UnreadableItemError("not a regular file")
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read(size)
    except OSError as error:
        raise UnreadableItemError(error.strerror or str(error)) from error
