"""Lock of a state folder: any number of runs share it; a repair and a clean-up have it for themselves."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdlora.core.errors import TrainingError
from sdlora.core.files import make_private_folder
from tasks.private import private_file

LOCK_FILE = "runs.lock"
CLEAN_UP_SECONDS = 300.0
"""Time that a run waits for a clean-up by the clock."""
_POLL_SECONDS = 0.5


@contextmanager
def run_lock(home: Path, patience_seconds: float = 0.0) -> Iterator[None]:
    """Share the state folder with other runs; the kernel frees the lock when the process ends, even by a kill.

    Args:
        patience_seconds: how long to wait for a repair or a clean-up.

    Raises:
        TrainingError: a repair or a clean-up works in the folder.
    """
    remedy = f"`sdlora doctor --repair` or `sdlora gc` works in {home}. Wait for it; the same command continues."
    with _lock(home, fcntl.LOCK_SH, remedy, patience_seconds):
        yield


@contextmanager
def exclusive_lock(home: Path) -> Iterator[None]:
    """Have the state folder without any run in it.

    Raises:
        TrainingError: a run, a repair or a clean-up works in the folder.
    """
    remedy = f"A run works in {home}. Wait for it, or stop it; `sdlora queue` shows what trains."
    with _lock(home, fcntl.LOCK_EX, remedy):
        yield


@contextmanager
def _lock(home: Path, kind: int, remedy: str, patience_seconds: float = 0.0) -> Iterator[None]:
    make_private_folder(home)
    deadline = time.monotonic() + patience_seconds
    with os.fdopen(private_file(home / LOCK_FILE), "r+") as file:
        while True:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise TrainingError(remedy) from error
            time.sleep(_POLL_SECONDS)
        yield
