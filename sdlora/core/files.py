"""Atomic and durable writing of files and folders, folders of one owner, and digests of files and JSON values.

A name in a folder promises whole content, also after a power cut. So content is flushed before it gets its name, and
then the folder that holds the name is flushed.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sdlora.core.errors import StorageError

_ABANDONED_SECONDS = 86_400.0
"""Age of a temporary path whose writer was killed; writing the largest model takes less."""


def flush(path: Path | str) -> None:
    """Write a file's content, or the names in a folder, to the disk and wait for it (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot flush a folder; PostgreSQL ignores the same two errors.
        if error.errno not in (errno.EBADF, errno.EINVAL) or not os.path.isdir(path):  # noqa: PTH112
            raise
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """Flush every file and folder below `folder`, and `folder` itself."""
    for parent, _, names in os.walk(folder):
        for name in names:
            flush(Path(parent, name))
        flush(parent)


def make_folder(folder: Path) -> Path:
    """Create a folder with its parents, and flush the parents that gained a name."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        flush(path.parent)
    return folder


def put_in_place(partial: Path, final: Path) -> None:
    """Flush a finished file or folder, give it its final name, and flush the folder that holds the name.

    A file replaces an earlier file atomically. Of an earlier folder, a process that dies on the way leaves nothing.
    """
    if partial.is_dir():
        flush_folder(partial)
        shutil.rmtree(final, ignore_errors=True)
    else:
        flush(partial)
    partial.replace(final)
    flush(final.parent)


@contextmanager
def written_aside(final: Path, suffix: str | None = None) -> Iterator[Path]:
    """Yield a temporary path next to `final` for a file or folder; it gets the name `final` if the block succeeds.

    The content is flushed first. If the block fails, the temporary path is removed and `final` is untouched.

    Args:
        final: the final path.
        suffix: suffix of the temporary path, by default that of `final`; another one hides it from tools that list
            files by their suffix.

    Raises:
        OSError: the disk is full or not writable.
    """
    suffix = final.suffix if suffix is None else suffix
    partial = final.with_name(f".{final.stem}.partial-{os.getpid()}{suffix}")
    make_folder(final.parent)
    _sweep(final, suffix)
    remove(partial)
    try:
        yield partial
        put_in_place(partial, final)
    finally:
        remove(partial)


def _sweep(final: Path, suffix: str) -> None:
    """Remove temporary paths of killed writers of `final`."""
    pattern = f".{glob.escape(final.stem)}.partial-*{glob.escape(suffix)}"
    for partial in final.parent.glob(pattern):
        with suppress(FileNotFoundError):
            if time.time() - partial.stat().st_mtime > _ABANDONED_SECONDS:
                remove(partial)


def remove(path: Path) -> None:
    """Delete a file or folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no hard links.

    Both names lead to the same bytes. Use this only for files that are replaced as a whole and never written in place.

    Raises:
        OSError: the target exists, or the disk is full or not writable.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # another file system, too many names, or no hard links at all
        shutil.copyfile(source, target)


def replace_file(path: Path, content: bytes) -> None:
    """Replace the content of `path` atomically: the file holds either the old or the new bytes.

    Raises:
        StorageError: the disk is full or not writable; an earlier file is untouched.
    """
    try:
        with written_aside(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        no_space = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "Free some space" if no_space else f"Make {path.parent} writable, or choose another folder,"
        raise StorageError(f"Cannot write {path}: {error.strerror or error}. {remedy} and run again.") from error


def make_private_folder(path: Path) -> Path:
    """Create a folder and its missing parents with mode 0700, under any umask; an existing folder keeps its mode.

    What lies below needs no modes of its own, because other users cannot reach it.

    Raises:
        OSError: the folder cannot be created.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
        flush(folder.parent)
    return path


def require_writable(folder: Path, option: str) -> None:
    """Check that files can be created in a folder, or that the folder can be created.

    Args:
        folder: the folder.
        option: option that names the folder, for the message.

    Raises:
        StorageError: the folder cannot be written.
    """
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if _is_visible(path))
    if not os.access(existing, os.W_OK | os.X_OK) or not existing.is_dir():
        raise StorageError(
            f"{existing} cannot be written. Change its rights, or choose another folder with {option}. Nothing was "
            "started."
        )


def _is_visible(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # below a folder that this user cannot enter
        return False


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_digest(value: Any) -> str:
    """Compute the SHA-256 of a JSON value, independent of the order of keys and written without spaces."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
