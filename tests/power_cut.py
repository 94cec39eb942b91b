"""Power cut: what a folder holds if everything is lost that was not flushed to the disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Disk:
    """Record of flushes: content by file, and names by folder, at the time of the last flush of each."""

    def __init__(self) -> None:
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}

    def flushed(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            self._contents.pop(status.st_ino, None)  # the number of a deleted file may come back for a folder
            self._names[status.st_ino] = {entry.name: entry.inode() for entry in os.scandir(descriptor)}
        else:
            self._names.pop(status.st_ino, None)
            self._contents[status.st_ino] = Path(f"/proc/self/fd/{descriptor}").read_bytes()

    def after_power_cut(self, root: Path) -> dict[str, bytes]:
        """Return the files that are left below `root`, by relative name; a file without flushed content is empty."""
        return dict(self._left(root.stat().st_ino, ""))

    def _left(self, folder: int, prefix: str) -> Iterator[tuple[str, bytes]]:
        for name, inode in self._names.get(folder, {}).items():
            if inode in self._names:
                yield from self._left(inode, f"{prefix}{name}/")
            else:
                yield f"{prefix}{name}", self._contents.get(inode, b"")


@contextmanager
def recorded_flushes() -> Iterator[Disk]:
    """Record the flushes of this process by `os.fsync`."""
    disk, fsync = Disk(), os.fsync

    def recorded(descriptor: int) -> None:
        fsync(descriptor)
        disk.flushed(descriptor)

    os.fsync = recorded
    try:
        yield disk
    finally:
        os.fsync = fsync


def files_in(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
