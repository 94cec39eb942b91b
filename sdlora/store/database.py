"""Opening images.db: SQLite in write-ahead mode, at the newest schema, with errors that name the remedy."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError

from sdlora.errors import SdloraError, StorageError

SCHEMA_REVISION = "0004"
"""The newest migration. Kept here so that opening an up-to-date database need not import Alembic."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_SECONDS = 60.0


def open_database(path: Path) -> Engine:
    """Open or create the database and bring it to the newest schema; safe when several processes do so at once.

    Raises:
        StorageError: the file cannot be written, is no database, or was made by a newer sdlora.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY_SECONDS})
        event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", _on_begin)
        try:
            with engine.connect() as connection:
                found = _revision(connection)
            if found != SCHEMA_REVISION:
                _migrate(engine, path)
        except BaseException:
            engine.dispose()
            raise
    return engine


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the disk or SQLite says about `path` into a StorageError with the remedy."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}. {_FREE_SPACE}") from error
    except DatabaseError as error:
        said = str(error.orig)
        if not isinstance(error.orig, sqlite3.DatabaseError) or isinstance(error.orig, sqlite3.IntegrityError):
            raise
        raise StorageError(f"{path}: {said}. {_remedy(said)}") from error


_FREE_SPACE = (
    "Free space there, make it writable, or point SDLORA_HOME at another disk; what was recorded before is intact."
)


def _remedy(said: str) -> str:
    if "not a database" in said or "malformed" in said:
        return "The file is damaged: put a backup in its place, or move it away and collect the sources again."
    if "locked" in said:
        return f"Another process has held the database for {_BUSY_SECONDS:.0f} seconds; end it and try again."
    return _FREE_SPACE


def _on_connect(connection: sqlite3.Connection, _: Any) -> None:
    # SQLAlchemy's "begin" event below starts transactions; sqlite3's own, implicit ones would start too late.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000:.0f}")
    connection.execute("PRAGMA foreign_keys = ON")
    # In write-ahead mode NORMAL cannot corrupt the database; a power cut may cost the last transactions.
    connection.execute("PRAGMA synchronous = NORMAL")
    _use_write_ahead_log(connection)


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """The mode is a property of the file. Changing it ignores the busy timeout, so the first openers take turns."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _on_begin(connection: Connection) -> None:
    # A writer takes the lock at once: upgrading a read lock half-way fails when two processes try it.
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('begin', 'DEFERRED')}")


def _revision(connection: Connection) -> str | None:
    try:
        row = connection.exec_driver_sql("SELECT version_num FROM alembic_version").first()
    except OperationalError as error:
        if "no such table" in str(error.orig):
            return None
        raise
    return row[0] if row else None


def _migrate(engine: Engine, path: Path) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    with engine.execution_options(begin="IMMEDIATE").begin() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")  # nothing to do if another process was quicker
        except CommandError as error:
            raise _unknown_revision(path) from error


def _unknown_revision(path: Path) -> SdloraError:
    return StorageError(
        f"{path} was written by a newer version of sdlora. Update sdlora, or choose another SDLORA_HOME."
    )
