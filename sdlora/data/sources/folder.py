"""Local folders of images, with their subfolders.

Remote folders are read by fsspec. For a local one, a pass without news would cost 1.3 times as much
(docs/experiments.md).
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from sdlora.core.errors import DataError
from sdlora.data.sources.base import (
    Item,
    Source,
    SourceContext,
    UnreadableItemError,
    address_key,
    local_path,
    refused_item,
)
from sdlora.data.sources.tree import Entry, Listing, is_annotation, is_image, tree_of

WORKERS = 1
"""One thread. The work per file is so small that more threads would wait for the interpreter's lock, not the disk."""


def open_folder(uri: str, context: SourceContext) -> Source | None:
    """Open a local folder; None for a remote address.

    Hidden files and folders are skipped. Symbolic links to folders are not followed.

    Raises:
        DataError: the folder does not exist, cannot be read, or holds no image.
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
    tree = tree_of(context, partial(_read, root), partial(_find, root))
    return Source(
        name=root.resolve().name or "folder",
        key=address_key(str(root.resolve())),
        count=count,
        items=lambda: tree.items(_listings(root, context.settle_seconds)),
        workers=WORKERS,
        unmatched=tree.unmatched,
        problems=tree.problems,
    )


def _count_files(root: Path) -> tuple[int, int]:
    """Count the image files and the other files of the tree."""
    images = files = 0
    for _, _, entries, _ in _walk(root):
        images += sum(is_image(entry.name) for entry in entries)
        files += len(entries)
    return images, files - images


def _listings(root: Path, settle_seconds: float) -> Iterator[Listing]:
    """Yield one listing per folder, so that memory holds the files of one folder only."""
    for folder, prefix, entries, problem in _walk(root):
        if settle_seconds:
            entries = [entry for entry in entries if _is_settled(entry, settle_seconds)]
        images: list[Entry | Item] = [refused_item(prefix or folder, problem)] if problem else []
        annotations: dict[str, Entry] = {}
        for entry in entries:
            path = prefix + entry.name
            if is_image(entry.name):
                images.append(_entry(path, entry))
            elif is_annotation(entry.name):
                annotations[path] = _entry(path, entry)
        yield Listing(images, annotations)


def _walk(root: Path) -> Iterator[tuple[str, str, list[os.DirEntry[str]], str | None]]:
    """Yield (folder, path within the root, sorted files, problem) of every folder, a folder before its subfolders.

    Raises:
        DataError: the root cannot be read. For a subfolder, the problem says so.
    """
    pending_folders = [(str(root), "")]
    while pending_folders:
        folder, prefix = pending_folders.pop()
        files, folders, problem = [], [], None
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
            if not prefix:
                raise DataError(
                    f"data.sources: {error.filename} cannot be read: {error.strerror}. Check its permissions."
                ) from error
            problem = f"the folder cannot be read: {error.strerror}"
        yield folder, prefix, sorted(files, key=lambda entry: entry.name), problem
        pending_folders += sorted(folders, reverse=True)


def _is_settled(entry: os.DirEntry[str], settle_seconds: float) -> bool:
    """Return True if nothing wrote to the file lately; a time in the future says nothing about that."""
    try:
        age = time.time() - entry.stat().st_mtime
    except OSError:
        return True
    return age >= settle_seconds or age < -settle_seconds


def _entry(path: str, entry: os.DirEntry[str]) -> Entry:
    try:
        status = entry.stat()
    except OSError:  # reading the file will give the reason
        return Entry(path, 0, None)
    if not stat.S_ISREG(status.st_mode):
        return Entry(path, 0, None)
    return Entry(path, status.st_size, f"{status.st_size}-{status.st_mtime_ns}")


def _find(root: Path, path: str) -> Entry | None:
    """Return the file at a path; None if it is outside the root, directly or through a linked folder."""
    file = root / path
    try:
        if not file.parent.resolve().is_relative_to(root.resolve()) or not file.is_file():
            return None
        status = file.stat()
    except (OSError, ValueError):
        return None
    return Entry(path, status.st_size, f"{status.st_size}-{status.st_mtime_ns}")


def _read(root: Path, entry: Entry, size: int) -> bytes:
    path = f"{root}/{entry.path}"  # creating a Path for every file would take a tenth of the time
    try:
        if entry.stamp is None and not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            raise UnreadableItemError("not a regular file")
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read(size)
    except OSError as error:
        raise UnreadableItemError(error.strerror or str(error)) from error
