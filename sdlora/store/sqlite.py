"""SQLite in write-ahead mode: readers see one state, and one writer at a time holds the file."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError

_BUSY_SECONDS = 60.0


class Sqlite:
    """Engine options and error remedies of SQLite."""

    READER = {"begin": "DEFERRED"}  # noqa: RUF012  # only ever unpacked
    # A writer takes the lock at the start, because upgrading a read lock fails if two processes try it.
    WRITER = {"begin": "IMMEDIATE"}  # noqa: RUF012  # only ever unpacked
    FREE_SPACE = "Free space there, make it writable, or point SDLORA_HOME at another disk; earlier records are intact."

    @staticmethod
    def create(url: URL) -> Engine:
        if url.database and is_read_only(path := Path(url.database)):
            engine = create_engine(url, creator=lambda: connect_read_only(path))
        else:
            engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS})
            event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", _on_begin)
        return engine

    @staticmethod
    def is_away(error: DatabaseError) -> bool:
        """Return False: a file has no server that could return."""
        return False

    @classmethod
    def remedy(cls, error: DatabaseError) -> str | None:
        """Return the remedy for an error; None if the error is a defect of sdlora."""
        if not isinstance(error.orig, sqlite3.DatabaseError) or isinstance(error.orig, sqlite3.IntegrityError):
            return None
        message = str(error.orig)
        if "not a database" in message or "malformed" in message:
            return "The file is damaged: put a backup in its place, or move it away and collect the sources again."
        if "locked" in message:
            return f"Another process has held the database for {_BUSY_SECONDS:.0f} seconds; end it and try again."
        return cls.FREE_SPACE


def is_read_only(path: Path) -> bool:
    """Return True if this process can read the database but not write it, as on a read-only file system."""
    if not path.is_file():
        return False
    can_log = _wal(path).exists() or os.access(path.parent, os.W_OK)
    return not (os.access(path, os.W_OK) and can_log)


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Open a database in write-ahead mode without writing anything.

    SQLite reads such a database only next to its index `-shm`, which it cannot create in a folder that is not writable.
    Without that file and without a log no process has the database open, so the file can be read as unchangeable. A
    command that reads takes seconds; a writer that starts meanwhile may spoil its answer, not the file.
    """
    is_open = _wal(path).exists() or path.with_name(f"{path.name}-shm").exists()
    is_closed = not is_open and not os.access(path.parent, os.W_OK)
    uri = f"file:{quote(str(path.absolute()))}?mode=ro" + ("&immutable=1" if is_closed else "")
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, check_same_thread=False)
    connection.isolation_level = None
    return connection


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _on_connect(connection: sqlite3.Connection, _: Any) -> None:
    # SQLAlchemy's "begin" event below starts transactions; sqlite3's implicit transactions start too late.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000:.0f}")
    connection.execute("PRAGMA foreign_keys = ON")
    # In write-ahead mode, NORMAL cannot corrupt the database; a power cut may lose the last transactions.
    connection.execute("PRAGMA synchronous = NORMAL")
    _use_write_ahead_log(connection)


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Set write-ahead mode, a property of the file; retry, because the change ignores the busy timeout."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _on_begin(connection: Connection) -> None:
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('begin', 'DEFERRED')}")
