"""Private files and folders: other users of the machine cannot read or lock them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sdlora.core.files import make_private_folder

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def private_folder(path: Path) -> Path:
    """Create a folder that other users of the machine cannot read, or make an existing one private."""
    make_private_folder(path)
    if path.stat().st_mode & OTHERS:  # only if needed: the file system may be read-only
        path.chmod(0o700)
    return path


def private_file(path: Path) -> int:
    """Open a lock's file for reading and writing; return its descriptor.

    The mode is 0600, because a user who can open a file can also lock it and keep the lock.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor
