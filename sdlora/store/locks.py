"""Lock of a style: one process at a time, on PostgreSQL one of all machines.

The kernel or the server frees the lock when its holder ends, also by a kill. The lock is separate from the write lock
of the database, which nobody may keep while another server is asked.
"""

from __future__ import annotations

import fcntl
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import func, select

from sdlora.core.errors import StorageError
from sdlora.core.files import make_private_folder
from sdlora.store.database import Database

FOLDER = "locks"
_WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.05


@contextmanager
def style_lock(database: Database, folder: Path, style: str) -> Iterator[None]:
    """Hold the lock of a style for the length of the block. A thread that holds it must not ask for it again.

    Args:
        folder: folder of the locks' files, which a database on a server does not need.

    Raises:
        StorageError: another process keeps the lock.
    """
    # The holder may wait for a server that is away, as long as runs do.
    deadline = time.monotonic() + max(_WAIT_SECONDS, database.patience_seconds)
    if database.engine.dialect.name == "postgresql":
        key = int.from_bytes(hashlib.sha256(f"style {style}".encode()).digest()[:8], signed=True)
        with database.connect() as connection:  # the lock ends with the transaction
            with database.errors():
                _wait(lambda: bool(connection.scalar(select(func.pg_try_advisory_xact_lock(key)))), style, deadline)
            yield  # outside `errors`: the errors of the block are not those of this database
        return
    make_private_folder(folder)
    with (folder / f"{style}.lock").open("a") as file:
        _wait(lambda: _is_locked(file.fileno()), style, deadline)
        yield


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(is_locked: Callable[[], bool], style: str, deadline: float) -> None:
    while not is_locked():
        if time.monotonic() >= deadline:
            raise StorageError(
                f"Another process has been working on the champion of {style!r} for too long; it may wait for MLflow. "
                "Wait for it, or end it, and try again."
            )
        time.sleep(_POLL_SECONDS)
