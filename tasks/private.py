"""Files and folders of the state folder that other users of the machine can neither read nor lock."""

from __future__ import annotations

import os
import stat
from pathlib import Path

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def private_folder(path: Path) -> Path:
    """Make a folder that other users of the machine cannot look into, also of one that is there."""
    path.mkdir(parents=True, exist_ok=True)
    if path.stat().st_mode & OTHERS:  # left alone where it is right: the file system may be mounted for reading only
        path.chmod(0o700)
    return path


def private_file(path: Path) -> int:
    """Open a lock's file for reading and writing; returns its descriptor.

    A user who can open a file can lock it, and keep it locked. Other users must not.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor
