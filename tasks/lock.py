"""Training lock: one training at a time in a state folder, from a worker, a terminal or a notebook."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdlora.core.errors import TrainingError
from sdlora.core.files import make_private_folder
from tasks.private import private_file

LOCK_FILE = "training.lock"


@contextmanager
def training_lock(home: Path) -> Iterator[None]:
    """Hold the state folder's training lock; the kernel frees the lock when the process ends, even by a kill.

    Raises:
        TrainingError: another process holds the lock.
    """
    make_private_folder(home)
    with os.fdopen(private_file(home / LOCK_FILE), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise TrainingError(
                f"Another run works in {home} (process {file.read().strip() or 'unknown'}). "
                "Wait for it, stop it, or choose another state folder with --home."
            ) from error
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield
