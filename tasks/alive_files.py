"""Lock files of live flow runs, read without Prefect. `tasks/alive.py` explains and writes them."""

from __future__ import annotations

import fcntl
from pathlib import Path

FOLDER = "alive"


def held_runs(home: Path) -> set[str]:
    """Return the ids of flow runs whose processes live on this machine."""
    return {path.name for path in (home / FOLDER).glob("[!.]*") if is_held(path)}


def is_held(path: Path) -> bool:
    """Return True if a process holds the lock of the file, or has just ended and removed the file."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):
        return True
    return False
