"""Lock of a state folder: any number of runs share it; a repair and a clean-up have it for themselves."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdlora.core.errors import TrainingError
from sdlora.core.files import make_private_folder
from tasks.private import private_file

LOCK_FILE = "runs.lock"


@contextmanager
def run_lock(home: Path) -> Iterator[None]:
    """Share the state folder with other runs; the kernel frees the lock when the process ends, even by a kill.

    Raises:
        TrainingError: a repair or a clean-up works in the folder.
    """
    remedy = f"`sdlora doctor --repair` or `sdlora gc` works in {home}. Wait for it; the same command continues."
    with _lock(home, fcntl.LOCK_SH, remedy):
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
def _lock(home: Path, kind: int, remedy: str) -> Iterator[None]:
    make_private_folder(home)
    with os.fdopen(private_file(home / LOCK_FILE), "r+") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(remedy) from error
        yield
